"""All methods by name, in the order of the table, with what each is tried with on validation. The first is the default."""

from steering_methods import activations, lora, loreft, one_layer, ours, prompts
from steering_methods.method import Method, fixed

# Learning rates. Of our own kinds their defaults, and double or half of them; of LoReFT those of its paper and of AxBench; of LoRA
# QLoRA's and larger ones, since 100 steps are few; of one vector in units of the stream's RMS (one_layer.py).
STATIC_RATES = (2e-2, 1e-2)
LITE_RATES = (1e-3, 2e-3)
PAPER_RATES = (1e-4, 2e-4)
ONE_LAYER_RATES = (0.03, 0.1, 0.01)
LOREFT_RATES = (4e-3, 9e-4, 1e-2)
BLOCK_LORA_RATES = (3e-3, 1e-3)
LORA_RATES = (2e-4, 1e-3)
LAYERS = fixed(activations.ALL, activations.MIDDLE)


METHODS = (
    Method("prompt", prompts.plain, prompts.phrasings, seeded=False, lacks=prompts.unnamed),
    Method("prompt+3", prompts.with_examples, lambda arena: prompts.phrasings(arena) or (prompts.SHOWN,)),
    Method("pca", activations.of_answers, LAYERS, seeded=False, pairs=True, searched=True),
    Method("pca-personas", activations.of_personas, LAYERS, seeded=False, pairs=True, searched=True, lacks=activations.unnamed),
    Method("means", activations.of_means, LAYERS, seeded=False, pairs=True, searched=True),
    Method("static", ours.static, fixed(*STATIC_RATES)),
    Method("lite", ours.lite, fixed(*LITE_RATES)),
    Method("lite-mean", ours.lite_mean, fixed(LITE_RATES[0]), follows="lite"),
    Method("lite-distilled", ours.lite_distilled, fixed(LITE_RATES[0]), follows="lite"),
    Method("lora-block", ours.lora, fixed(*BLOCK_LORA_RATES)),
    Method("paper", ours.paper, fixed(*PAPER_RATES)),
    Method("paper-distilled", ours.paper_distilled, fixed(PAPER_RATES[0]), follows="paper"),
    Method("rank1", one_layer.rank1, fixed(*ONE_LAYER_RATES)),
    Method("reps", one_layer.reps, fixed(*ONE_LAYER_RATES), pairs=True),
    Method("bipo", one_layer.bipo, fixed(*ONE_LAYER_RATES), pairs=True),
    Method("loreft", loreft.loreft, fixed(*LOREFT_RATES)),
    Method("lora", lora.lora, fixed(*LORA_RATES), lacks=lora.missing),
)
BY_NAME = {method.name: method for method in METHODS}
USUAL = tuple(name for name in BY_NAME if not name.startswith("paper"))  # its network has 66 times lite's parameters
