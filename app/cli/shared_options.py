"""Options that several commands have, in groups, and what they mean to the rest of the program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from specee.app import options as opts
from specee.app import settings
from specee.app.cli import config
from specee.app.cli.option import OWN, Option, Setting
from specee.app.errors import USAGE, AppError

SCRIPTS, CHATS, ANSWER, MODEL, SPEED, CHOOSING, FILES = HEADINGS = (
    "One answer, for scripts",
    "Chats that are kept",
    "Answer",
    "Model and machine",
    "Speed",
    "How the next token is chosen",
    "Files and network",
)
"""The headings of --help, in their order."""

PERSONAS = "specee.personas"
"""Where a click context has the personas of config.toml."""

Values = dict[str, Any]
Options = list[click.Parameter]

POLICY_NAMES = opts.PARAMETERS_OF_POLICIES
SAMPLING_NAMES = ("temperature", "repeat_penalty", "top_k", "top_p", "min_p", "seed")


def _read_config(context: click.Context, parameter: click.Parameter, data_dir: str | None) -> str | None:
    """Before the other options are looked at: config.toml has their defaults.

    It is read for the program, and again for a command after which another folder is named; what was typed before that
    command still wins. What is wrong in it counts only where no other is read after it.
    """
    named = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    if context.resilient_parsing or not (named or context.parent is None):
        return data_dir
    known = [option for option in context.find_root().command.params if option.name in SETTINGS]
    found = config.find(context, data_dir, known)
    context.default_map = {**found.defaults, **config.typed_before(context)}
    context.meta[PERSONAS] = found.personas
    return data_dir


class PolicySpec(Setting):
    """A policy, with options for it in short: specee@0.5."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        spec: str = super().convert(value, param, ctx)
        opts.PolicyChoice.parse(spec)
        return spec

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in opts.POLICIES if name.startswith(incomplete)]


WHICH_MODEL = Option(
    ["--model"],
    MODEL,
    "the small one that comes with specee-chat",
    type=Setting(settings.FileName),
    metavar="M",
    help="A .gguf file, a name from 'specee-chat models', or a repository on Hugging Face, hf:owner/repo[:quant].",
)
CTX = Option(
    ["--ctx"],
    MODEL,
    opts.DEFAULT_CTX,
    type=Setting(settings.ContextTokens),
    metavar="N",
    help="Context window: how many tokens of a chat the model sees.",
)
KV_TYPE = Option(
    ["--kv-type"],
    MODEL,
    opts.DEFAULT_KV_TYPE,
    type=Setting(settings.KVType),
    metavar="NAME",
    help="What the model remembers of the tokens in its context window is kept as f16, or as q8_0, which takes about "
    "half of the memory; its text then changes a little, and long chats are slower on a CPU.",
)
THREADS = Option(
    ["--threads"],
    MODEL,
    "one for each fast core",
    type=Setting(settings.Threads),
    metavar="N",
    help="CPU threads at most; fewer run while other programs keep cores busy.",
)
GPU_LAYERS = Option(
    ["--gpu-layers"],
    MODEL,
    "0; auto with --rpc or --device",
    type=Setting(settings.GivenGpuLayers),
    metavar="N",
    help="How many of the model's layers, from the first on, the GPU or the workers compute, and with one more the LM "
    "head; auto: as many as they have room for. A GPU needs a build for it.",
)
RPC = Option(
    ["--rpc"],
    MODEL,
    type=Setting(settings.Endpoints),
    metavar="HOST:PORT[,..]",
    help="Workers on other machines ('specee-chat worker') that compute layers. Nothing is encrypted: only in networks "
    "that you trust.",
)
DEVICE = Option(
    ["--device"],
    MODEL,
    type=Setting(settings.DeviceNames),
    metavar="NAME[,..]",
    help="Which devices compute layers, in this order: names that 'specee-chat doctor' lists, RPC0 for the first "
    "worker. none or CPU: the CPU alone.",
    otherwise="the workers of --rpc, then the GPUs",
)
TENSOR_SPLIT = Option(
    ["--tensor-split"],
    MODEL,
    type=Setting(settings.TensorSplit),
    metavar="A,B,..",
    help="How these layers are shared out to the devices: 3,1 gives the first one three times as many.",
    otherwise="by their free memory",
)
CPU_FALLBACK = Option(
    ["--cpu-fallback"],
    MODEL,
    is_flag=True,
    default=None,
    help="When a GPU or a worker fails, the other workers or the CPU alone go on without a question, also with an "
    "answer that has begun.",
)
PLACES: Options = [GPU_LAYERS, RPC, DEVICE, TENSOR_SPLIT]
"""What computes beside the CPU."""
PLACEMENT: Options = [*PLACES, CPU_FALLBACK]
"""The same, and what happens when it fails."""
ENGINE: Options = [WHICH_MODEL, CTX, KV_TYPE, THREADS, *PLACEMENT]
"""Which model runs, and on what."""
MACHINE: Options = [WHICH_MODEL, THREADS, *PLACEMENT]
"""The same for what has a context window of its own."""

SYSTEM = Option(
    ["--system"],
    ANSWER,
    "the model's own",
    type=Setting(settings.Text),
    metavar="TEXT",
    help="System message: how the model is to behave.",
)


def max_tokens(default: int) -> Option:
    return Option(
        ["--max-tokens"],
        ANSWER,
        default,
        type=Setting(settings.MaxTokens),
        metavar="N",
        help="Longest answer, in tokens, with its thoughts.",
    )


def sampling(default: opts.Sampling) -> Options:
    """How a token is drawn; `default` is what the command does when nothing is given."""
    return [
        Option(
            ["--temperature"],
            CHOOSING,
            f"{default.temperature:g}",
            type=Setting(settings.Temperature),
            metavar="T",
            help="How freely it is chosen; 0 takes the likeliest one, always.",
        ),
        Option(
            ["--repeat-penalty"],
            CHOOSING,
            f"{default.repeat_penalty:g}",
            type=Setting(settings.RepeatPenalty),
            metavar="R",
            help=f"Makes the last {default.repeat_last_n} tokens less likely to come again; 1 does not.",
        ),
        Option(
            ["--top-k"],
            CHOOSING,
            default.top_k,
            type=Setting(settings.TopK),
            metavar="N",
            help="Only among the N likeliest; 0 means all.",
        ),
        Option(
            ["--top-p"],
            CHOOSING,
            f"{default.top_p:g}",
            type=Setting(settings.TopP),
            metavar="P",
            help="Only among the likeliest that together have the probability P; 1 means all.",
        ),
        Option(
            ["--min-p"],
            CHOOSING,
            f"{default.min_p:g}",
            type=Setting(settings.MinP),
            metavar="P",
            help="Only among those at least P times as likely as the likeliest; 0 means all.",
        ),
        seed("random" if default.seed is None else default.seed),
    ]


def seed(default: object) -> Option:
    return Option(
        ["--seed"],
        CHOOSING,
        default,
        type=Setting(settings.Seed),
        metavar="N",
        help="For the random numbers: the same seed gives the same result again.",
    )


POLICY = Option(
    ["--policy"],
    SPEED,
    "auto",
    type=PolicySpec(settings.Text),
    metavar="NAME",
    help="auto: the fastest way here with the text of dense. dense: one token after the other, all through all layers "
    "of the model. chain: tokens that are easy to guess are tried several at once; the text is that of dense. tree: "
    "like chain, and where guesses differ several are tried for one place. exact: tokens that the model is already "
    "sure of skip the last layers; these run later, for several tokens at once, and verify them, so the text at "
    "temperature 0 is that of dense. specee: they are not verified, so the text may differ a little. pipelined: the "
    "next token starts on a guess before this one is through all layers; the text is that of dense, and a single CPU "
    "gains nothing. "
    "The options below in short: chain:rejection, chain:early, specee@0.5, exact:margin, specee:propagate.",
)
DRAFTER = Option(
    ["--drafter"],
    SPEED,
    "the one that 'specee-chat models show' names for the model, if it is here",
    type=Setting(settings.FileName),
    metavar="M",
    help="A small model with the same vocabulary: a name or a .gguf file. With the policy chain it drafts tokens that "
    "the model then tries several at once, wherever that is faster; the text stays that of dense. none: no such model.",
)
ACCEPTANCE = Option(
    ["--acceptance"],
    SPEED,
    opts.ACCEPTANCE[0],
    type=Setting(settings.Acceptance),
    metavar="NAME",
    help="With chain and tree: which drafted tokens stand. exact: those that the model chooses; a seed has the text of "
    "dense. rejection: rejection sampling; as good as dense, but a seed has another text each time. typical: also "
    "others that the model finds likely; lossy: faster, and the text changes.",
)
DRAFT_LENGTH = Option(
    ["--draft-length"],
    SPEED,
    "what pays",
    type=Setting(settings.DraftLength),
    metavar="N",
    help="With chain, tree and pipelined: how many drafted tokens are tried in every step. With it exact and specee "
    "draft tokens too, which then skip layers together.",
)
EARLY_REJECTION = Option(
    ["--early-rejection"],
    SPEED,
    is_flag=True,
    default=None,
    help="With chain: drafted tokens that will surely be rejected do not run through the last layers; needs a "
    "calibration. The text stays that of dense.",
)
NO_CHATS = Option(
    ["--no-chats"],
    SPEED,
    is_flag=True,
    default=None,
    help="Draft nothing from your earlier chats, and let no draft head learn from them.",
)
DRAFTING: Options = [DRAFTER, ACCEPTANCE, DRAFT_LENGTH, EARLY_REJECTION]
"""What concerns drafted tokens."""
EXITS: Options = [
    Option(
        ["--threshold"],
        SPEED,
        settings.CALIBRATED,
        type=Setting(settings.GivenThreshold),
        metavar="X",
        help="How sure the model must be before a token skips layers, from 0 to 1; 'calibrated' is what 'specee-chat "
        "calibrate' found for the model.",
    ),
    Option(
        ["--rule"],
        SPEED,
        opts.RULES[0],
        type=Setting(settings.Rule),
        metavar="NAME",
        help="What tells how sure the model is. predictor: a small network (the SpecEE paper's way). margin: how far "
        "the best token of a short list is ahead of the next.",
    ),
    Option(
        ["--kv"],
        SPEED,
        "complete",
        type=Setting(settings.SkippedKV),
        metavar="NAME",
        help="With specee: where later tokens find the skipped layers' keys and values. complete: these layers are "
        "computed later. propagate: estimated from the last layer that ran, which is less work and less exact.",
    ),
    Option(
        ["--max-pending"],
        SPEED,
        3,
        type=Setting(settings.MaxPending),
        metavar="N",
        help="With exact and specee: how many tokens may wait with skipped layers before these are computed together.",
    ),
]

OFFLINE = Option(["--offline"], FILES, is_flag=True, default=None, help="Never use a network.")
YES = Option(["--yes"], FILES, is_flag=True, default=None, help="Fetch a model that is not here without asking.")
DATA_DIR = Option(
    ["--data-dir"],
    FILES,
    "SPECEE_DATA_DIR, or the system's place",
    type=Setting(settings.FileName),
    metavar="DIR",
    is_eager=True,
    callback=_read_config,
    help="Keep chats, calibrations and all other files in this folder.",
)
EVERYWHERE: Options = [OFFLINE, YES, DATA_DIR]
"""Every command takes these: where there is nothing to fetch or to ask, they hold all the same."""

JSON = Option(["--json", "as_json"], OWN, is_flag=True, help="Print JSON, for programs.")

THINK = Option(
    ["--think"],
    ANSWER,
    opts.ChatOptions.think,
    type=Setting(settings.Think),
    metavar="NAME",
    help="Whether a model that can think first does so: on, off, or how much where it knows that (low, medium, high). "
    "auto: as its chat template has it.",
)
THINK_TOKENS = Option(
    ["--think-tokens"],
    ANSWER,
    "no limit but --max-tokens",
    type=Setting(settings.ThinkTokens),
    metavar="N",
    help="Longest thought, in tokens: it is ended then, and the model answers.",
)

CHAT: Options = [
    *(max_tokens(opts.ChatOptions.max_tokens), THINK, THINK_TOKENS, SYSTEM),
    *(*ENGINE, POLICY, *DRAFTING, NO_CHATS, *EXITS, *sampling(opts.Sampling()), *EVERYWHERE),
]
"""All that concerns an answer."""

_OF_THE_PROGRAM = {"persona", "when_full", "no_history", "plain", "ascii", "stats"}
SETTINGS = {str(option.name) for option in CHAT} - {"data_dir"} | _OF_THE_PROGRAM
"""Options that config.toml may set."""


def load_options(values: Values) -> opts.LoadOptions:
    """What concerns the model and the machine. The models are here then: they may have been fetched first."""
    from specee.app.cli import fetch_model

    offline = bool(values["offline"])
    drafter = values.get("drafter")
    for name in ("model", "drafter") if drafter not in (None, opts.NO_DRAFTER) else ("model",):
        with config.naming_its_keys({name: values[name]}):
            fetch_model.ensure(
                values[name],
                offline=offline,
                yes=bool(values["yes"]),
                data_dir=values["data_dir"],
                answers=name == "model",
            )
    load = opts.LoadOptions(
        model=values["model"],
        drafter=drafter,
        n_ctx=values.get("ctx"),
        kv_type=values.get("kv_type") or opts.DEFAULT_KV_TYPE,
        threads=values.get("threads"),
        gpu_layers=values.get("gpu_layers"),
        rpc=values.get("rpc"),
        device=values.get("device"),
        tensor_split=values.get("tensor_split"),
        cpu_fallback=bool(values.get("cpu_fallback")),
        data_dir=values["data_dir"],
        offline=offline,
        chats=not values.get("no_chats"),
    )
    check_places(load)
    if drafter is not None:
        from specee.app.engine.draft_file import check_drafter

        with config.naming_its_keys({name: values.get(name) for name in ("model", "drafter")}):
            check_drafter(load)
    return load


def check_places(load: opts.LoadOptions) -> None:
    """Raises AppError for shares on the command line of layers that are on no other device. Those of config.toml are
    for chats that have some."""
    context = click.get_current_context()
    typed = context.get_parameter_source("tensor_split") is ParameterSource.COMMANDLINE
    if typed and load.tensor_split is not None and not load.has_devices:
        why = "no layers are on other devices; --gpu-layers N, --rpc or --device put some there"
        raise AppError("--tensor-split changes nothing", why, USAGE)


def policy_choice(values: Values, spec: str) -> opts.PolicyChoice:
    """The policy `spec` with those of the given options that it takes."""
    choice = opts.PolicyChoice.parse(spec)
    given: Values = {name: values[name] for name in POLICY_NAMES if values[name] is not None and choice.takes(name)}
    if given.get("threshold") == settings.CALIBRATED:
        given["threshold"] = None
    for name, value in given.items():
        said = getattr(choice, name)
        if said not in (None, False) and said != value:
            why = f"--policy {spec} and --{name.replace('_', '-')} {value}"
            with config.naming_its_keys({"policy": spec, name: value}):
                raise AppError("these exclude each other", why, USAGE)
    with config.naming_its_keys({"policy": spec, **{name: given.get(name) for name in ("rule", "draft_length")}}):
        return replace(choice, **given)


def check_policy_options(choices: Iterable[opts.PolicyChoice]) -> None:
    """Raises AppError for an option on the command line that none of these policies takes.

    Those of config.toml are for the policies that take them.
    """
    context, choices = click.get_current_context(), tuple(choices)
    for name in POLICY_NAMES:
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and context.params.get(name) and not any(choice.takes(name) for choice in choices):
            option = f"--{name.replace('_', '-')}"
            takers = " and ".join(policy for policy, taken in opts.PARAMETERS.items() if name in taken)
            policies = " and ".join(choice.name for choice in choices)
            why = f"policy {policies} has no use for it; it is for {takers}"
            raise AppError(f"{option} changes nothing", why, USAGE)


def given_sampling(values: Values, default: opts.Sampling) -> opts.Sampling:
    """`default` with what is given."""
    given = {name: values[name] for name in SAMPLING_NAMES if values[name] is not None}
    return opts.replace_sampling(default, given)


def chat_options(values: Values, default: opts.ChatOptions = opts.DEFAULT_CHAT) -> opts.ChatOptions:
    """What concerns an answer: `default` with what is given. Raises AppError for what does not go together."""
    policy = policy_choice(values, default.policy.label if values["policy"] is None else values["policy"])
    check_policy_options([policy])
    sampling = given_sampling(values, default.sampling)
    given = {name: values[name] for name in opts.OF_ANSWER if values[name] is not None}
    return replace(default, policy=policy, sampling=sampling, **given)
