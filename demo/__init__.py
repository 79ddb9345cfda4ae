"""The Gradio app: a drawing pad, and tabs with experiments on the digit drawn on it."""
