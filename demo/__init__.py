"""The Gradio app: a drawing pad, and tabs that ask questions of the digit drawn on it."""
