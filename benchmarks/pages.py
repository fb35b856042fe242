"""What each page says beside its tables: its title, and how it was measured. Names in braces are a race's sizes."""

WAYS = """Every contestant runs in a process of its own in every round, one after the other; ratios are taken within a
round. Both sides have the same texts, batch size, AdamW, learning rates, warm-up, weight decay and clipping."""

PAGES = {
    "speed": (
        "Fine-tuning: texts a second",
        """all-MiniLM-L6-v2 with a regression head on {texts} long texts of `worry_anxiety`, at most 256 tokens, {epochs}
epoch(s) in batches of {batch_size}, dropout 0.1 on hidden states and on attention on both sides. Medians over
{rounds} rounds with 95 % bootstrap intervals over rounds; the round's number is the seed of order, dropout and head.

- Counted is all from the end of the first step, which compiles and fills caches, to the end of the last, batching
  and logging as they come. Trainer neither validates nor saves; our validation (8 texts an epoch) is left out.
- Texts are tokenised before the first step. The column "tokenising counted" adds the time of it to both sides.
- The column "by CPU time" counts the seconds that the processors worked for a contestant instead of the clock's: it
  tells how far other work on the machine moved the others.
- `Trainer, as it comes`: random order, a batch padded to its longest text, attention sdpa.
- `Trainer, grouped by length`: `train_sampling_strategy="group_by_length"` and attention {attention}, the faster of
  two in a trial of {trial} steps before the rounds ({trials}). It groups within 50 batches or a quarter of the texts, so that the more
  texts there are, the less it pads.
- minibert's products come from {library} on this processor (`minibert/device.py`, products). Where that is another
  library, it is worth up to 1.8 times by itself, and Trainer is told to take it, too, in a row of its own.""",
    ),
    "memory": (
        "Fine-tuning: memory",
        """BERT of {layers} layers, {width} wide, vocabulary 30,522, with random weights and a regression head; {texts} texts of
{tokens} tokens a step, {steps} steps, dropout 0.1 on hidden states and on attention; {rounds} round(s).

- MB (10^6 bytes) in RAM: VmRSS, and of the peak VmHWM, put back before the first step and read when training is over:
  with minibert's copy of the best epoch's weights, which Trainer would write to disk and was not asked for.
- "Before the model": all is imported and nothing loaded, so that the peak over it holds weights, gradients, AdamW's
  moments and activations; and whatever is imported only when it is needed.
- "Before the first step": the model is loaded, the texts are tokenised.
- `minibert` computes at most {microbatch} tokens at once, as it comes.
- `minibert, recompute`: `[train] recompute = true`. `Trainer, checkpointing`: `gradient_checkpointing=True`.
- A step's time leaves the first one out. Ratios below 1: minibert takes less.""",
    ),
    "losses": (
        "Fine-tuning: the same losses",
        """all-MiniLM-L6-v2 in float32 on texts of `reuters8`, one new classification head for both sides, saved by minibert and
loaded by transformers; no dropout; the same {steps} batches of {batch_size} in the same order, learning rate {learning_rate}.
`Trainer` is transformers' own; `plain loop` is its model with torch's AdamW (fused), `clip_grad_norm_` and
`get_linear_schedule_with_warmup`. Ours is `minibert.fit` as `minibert run` calls it.

In the second table one step of ours in micro-batches stands beside the same step at once: the largest difference of
any entry of any gradient, as a share of the largest entry of all.""",
    ),
    "score": (
        "Fine-tuning: the same scores",
        """Test scores of all-MiniLM-L6-v2 on `worry_anxiety`. A seed draws the texts, {texts} to learn from, {validation} to choose the
epoch by and {test} to test, the same for both sides, and each side's head, order and dropout. {epochs} epoch(s), batches of
32, rate 2e-5, at most 256 tokens, dropout 0.1; targets standardised with the training part's mean and deviation on
both sides. Each keeps the epoch with the best Pearson r on the validation part (Trainer: `load_best_model_at_end`).
In the last line: means, and the mean difference, minibert less Trainer, with its 95 % interval by Student's t over
seeds.""",
    ),
    "card": (
        "Fine-tuning on a card: tokens a second",
        """BERT of two sizes, vocabulary 30,522, with random weights and a regression head, on {texts} long texts of
`worry_anxiety`, at most {tokens} tokens, {epochs} epoch(s) in batches of {batch_size}, dropout 0.1 on hidden states and on attention
on both sides; bfloat16 autocast over float32 weights on both sides, TF32 on neither. Medians over {rounds} rounds.

- Counted is from the end of the twentieth step to the end of the last; both sides wait for the card every ten steps.
- The share of the peak is of the arithmetic that the text needs (`minibert/flops.py`: real tokens, three times the
  forward pass), so padding counts as time and not as work; the peak is NVIDIA's published one, dense, and beside it
  the best bfloat16 product that torch makes on this card in the same run.
- `Trainer, as it comes`: random order, a batch padded to its longest text, attention sdpa, `bf16=True`.
- `Trainer, grouped by length`: `train_sampling_strategy="group_by_length"`.
- `minibert, compiled`: `[train] compile = "reduce-overhead"`, CUDA graphs.""",
    ),
    "processes": (
        "Fine-tuning: two processes beside one",
        """`minibert run SPEC` by itself, and started by `python -m torch.distributed.run --standalone --nproc-per-node 2`, one thread a
process. The speed is what history.jsonl says, the first step left out. all-MiniLM-L6-v2 with a regression head on
{texts} long texts of `worry_anxiety`, {epochs} epoch(s), batches of {batch_size} for all processes together, dropout 0.1.""",
    ),
}
