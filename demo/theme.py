"""The look of the app: a calm page in the fonts of the reader's own system, light and dark."""

import gradio as gr

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


class Paper(gr.themes.Base):
    """Ink on paper; blue for what is chosen. The colours of eval and train are in style.css."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue="sky", neutral_hue="zinc", radius_size="md", spacing_size="md", font=SANS, font_mono=MONO
        )
        self.name = "paper"
        self.set(
            body_background_fill="#fafaf7",
            body_background_fill_dark="#15171b",
            body_text_color="#1d2127",
            body_text_color_dark="#e8e8e4",
            body_text_color_subdued="#5b626c",
            body_text_color_subdued_dark="#a3a8b0",
            background_fill_primary="#ffffff",
            background_fill_primary_dark="#1d2025",
            background_fill_secondary="#f3f3ee",
            background_fill_secondary_dark="#191c20",
            block_background_fill="transparent",
            block_background_fill_dark="transparent",
            block_border_width="0px",
            block_border_width_dark="0px",
            block_shadow="none",
            block_shadow_dark="none",
            block_padding="0",
            block_label_background_fill="transparent",
            block_label_background_fill_dark="transparent",
            block_title_text_weight="400",
            block_title_text_size="*text_sm",
            block_title_text_color="*body_text_color_subdued",
            block_title_text_color_dark="*body_text_color_subdued",
            border_color_primary="#e2e2da",
            border_color_primary_dark="#33373e",
            input_background_fill="#ffffff",
            input_background_fill_dark="#1d2025",
            input_border_color="#dcdcd4",
            input_border_color_dark="#3a3f47",
            input_border_width="1px",
            input_shadow="none",
            input_shadow_dark="none",
            slider_color="var(--eval)",
            button_secondary_background_fill="#ffffff",
            button_secondary_background_fill_dark="#23272d",
            button_secondary_background_fill_hover="#f0f0ea",
            button_secondary_background_fill_hover_dark="#2c3138",
            button_secondary_border_color="#dcdcd4",
            button_secondary_border_color_dark="#3a3f47",
            button_border_width="1px",
            button_primary_background_fill="var(--eval)",
            button_primary_background_fill_dark="var(--eval)",
            button_primary_background_fill_hover="#005f96",
            button_primary_background_fill_hover_dark="#7cc5ef",
            button_primary_text_color="#ffffff",
            button_primary_text_color_dark="#10151a",
            color_accent="var(--eval)",
            border_color_accent="var(--eval)",
            link_text_color="var(--eval)",
        )
