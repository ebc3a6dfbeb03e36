"""What a model of Qwen that sees is told around a text, so that it describes a picture: the same for Krea 2 and Qwen-Image."""

BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:<|im_end|>\n<|im_start|>user\n"
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
TOKENS_BEFORE, TOKENS_AFTER = 34, 5  # of these; the states of the first are left out
