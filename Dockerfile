# The app in a container; docs/space.md says how to build and run it.
FROM python:3.11-slim

# URL of PyTorch's index of CPU-only builds; without it the image contains CUDA
ARG TORCH_INDEX=""

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860

WORKDIR /app
COPY requirements.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then grep -E "^torch" requirements.txt > torch.txt \
    && pip install --index-url "$TORCH_INDEX" -r torch.txt; fi \
    && pip install -r requirements.txt
COPY app.py ./
COPY bnmodel bnmodel
COPY export export
COPY demo demo
COPY docs/lesson.md docs/lesson.md
COPY examples/onnx examples/onnx
COPY checkpoints checkpoints

RUN useradd --create-home --uid 1000 visitor
USER 1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=4)"]
CMD ["python", "app.py"]
