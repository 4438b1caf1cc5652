"""sefa factorize: checkpoint to direction bank."""

from typing import Annotated

from sefa.opening import OpenOptions
from sefa_cli.descriptions import origin_facts, print_directions
from sefa_cli.from_checkpoint import find_directions, open_generator
from sefa_cli.options import OPENING, BankOutput, CheckpointArgument, DirectionOptions, JsonOption
from sefa_cli.output import print_json, say
from sefa_runtime.files import check_utf8_output


def factorize(
    checkpoint: CheckpointArgument,
    output: BankOutput,
    choices: DirectionOptions,
    opening: Annotated[OpenOptions, OPENING.without("noise")],
    json: JsonOption = False,
) -> None:
    """Find a generator's directions and save them as a bank.

    [b]sefa factorize netG.pth -o faces.safetensors[/b]

    They are the unit eigenvectors of AᵀA with the largest eigenvalues, where A is the first transform applied to the
    latent code. This needs no data and no training, and takes well under a second. See what they do with [b]sefa
    export[/b] and [b]sefa sweep[/b]; name them with [b]sefa name[/b]. [b]--method ganspace[/b] samples latents instead.
    """
    from sefa.bank.direction_bank import check_bank_name

    check_bank_name(output)
    check_utf8_output(output, checkpoint, opening.weights)
    generator = open_generator(checkpoint, opening, choices.layers)
    bank = find_directions(generator, choices)
    bank.save(output)
    if json:
        print_json(
            {
                "bank": str(output),
                "names": list(bank.names),
                "eigenvalues": bank.eigenvalues.tolist(),
                "rank": bank.source.rank,
                "checkpoint_sha256": bank.source.checkpoint_sha256,
            }
        )
        return
    print_directions(bank)
    say("", f"{output}: {len(bank)} directions of {bank.code_dim} components")
    for name, value in origin_facts(generator):
        say(f"{name}: {value}")
