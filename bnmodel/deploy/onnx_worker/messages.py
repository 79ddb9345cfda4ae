"""Messages of ONNX Runtime without its error codes and references to its source files."""

import re

PREAMBLE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^.*Status Message: |^Exception during initialization: "
    r"|^\S*onnxruntime\S*:\d+ |^(\w+ )?onnxruntime::.*?\)( const)? (.*? was false\. )?",
    re.DOTALL,
)


def without_preamble(message: str) -> str:
    while (shorter := PREAMBLE.sub("", message, count=1)) != message and shorter.strip():
        message = shorter
    return message
