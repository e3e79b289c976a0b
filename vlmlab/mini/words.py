"""The processor of the small Janus: a byte-level BPE made from a few texts, and images at its size."""

from collections.abc import Iterable

# the names that Janus-Pro gives them
TOKENS = {
    "image_token": "<image_placeholder>",
    "boi_token": "<begin_of_image>",
    "eoi_token": "<end_of_image>",
}
CHAT = """{%- for message in messages -%}
{%- if message.content is string -%}{{ message.content }}{%- else -%}{%- for part in message.content -%}
{{- "<image_placeholder>" if part.type == "image" else part.text -}}
{%- endfor -%}{%- endif -%}{%- endfor -%}"""
BEGIN, END, PAD = "<|begin_of_sentence|>", "<|end_of_sentence|>", "<|pad|>"


def tokenizer_of(texts: Iterable[str], size: int):
    """A tokenizer of transformers with at most `size` tokens; every word begins with its space, and every byte is known."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    own.decoder = decoders.ByteLevel()
    marks = [PAD, BEGIN, END, *TOKENS.values()]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
        ),
    )
    own.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, own.token_to_id(BEGIN))]
    )
    names = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    return PreTrainedTokenizerFast(
        tokenizer_object=own, **names, extra_special_tokens=TOKENS, padding_side="left"
    )


def processor_of(texts: Iterable[str], config):
    """Janus' processor. config: with words, image and patch (see `Janus.Config`)."""
    from transformers import JanusImageProcessor, JanusProcessor

    side = config.image
    images = JanusImageProcessor(size={"height": side, "width": side})
    count = (side // config.patch) ** 2
    return JanusProcessor(images, tokenizer_of(texts, config.words), CHAT, num_image_tokens=count)
