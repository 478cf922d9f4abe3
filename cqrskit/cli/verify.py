"""``cqrskit verify``: whether a projection's documents are what the log says."""

import msgspec
import rich_click as click

from cqrskit.application import Runtime
from cqrskit.checkpoints import Generation
from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError
from cqrskit.fingerprint import fingerprint_of
from cqrskit.generations import generation_for
from cqrskit.projection import Projection
from cqrskit.settings import load_settings
from cqrskit.telemetry import configure_logging
from cqrskit.verification import Difference, ParkedDocument, VerificationReport

__all__ = ["Verified", "line_of", "verified", "verify_command"]

LISTED = 20


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification has found, for machines; `differences` are the first ones of `differences_count`."""

    projection: str
    generation: int
    position: int
    documents: int
    differences_count: int
    differences: list[Difference]
    parked: list[ParkedDocument]
    adopted: bool = False


@click.command("verify")
@click.argument("name")
@app_option
@click.option("--full", is_flag=True, help="Compare all documents (the default).")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Compare this share of the keys only, such as 0.01; documents that the log lacks are not found.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which sample.")
@click.option("--generation", type=click.IntRange(min=1), help="Another generation than the one that is read.")
@click.option("--limit", type=click.IntRange(min=0), default=LISTED, show_default=True, help="Differences to list.")
@json_option("Write one JSON object; errors are JSON too.")
@common_options
def verify_command(
    name: str,
    app: str | None,
    full: bool,
    sample: float | None,
    seed: int,
    generation: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Fold the log again and compare each document with the read store; exit code 1 if one is not what the log says.

    Projector and writers may go on meanwhile. If all documents are right although the code of the folds has changed,
    no rebuild is due any more.

    \b
    Examples:
      cqrskit verify balances --app bank:app
      cqrskit verify balances --app bank:app --sample 0.01
      cqrskit verify balances --app bank:app --json
    """
    if full and sample is not None:
        raise click.UsageError("--full and --sample exclude each other")
    application = application_of(app)
    projection = application.projection_named(name)

    async def verify() -> int:
        settings = load_settings()
        configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
        async with application.open(settings, executor=False) as runtime:
            found = await _generation(runtime, projection, generation)
            result = await verified(
                runtime, projection, found, share=sample or 1.0, seed=seed, limit=limit, quiet=as_json
            )
            if sample is None and result.differences_count == 0 and not result.parked:
                result = await _adopted(runtime, projection, found, result)
        _show(result, as_json)
        return FAILED if result.differences_count else 0

    run(verify)


async def _generation(runtime: Runtime, projection: type[Projection], number: int | None) -> Generation:
    generations = await runtime.checkpoints.generations()
    own = [each for each in generations if each.projection == projection.name]
    if number is None:
        found = generation_for(projection, fingerprint_of(projection), generations)
        if found is None:
            raise ConfigurationError(f"projection {projection.name!r} was never started: run `cqrskit project`")
        return found
    for each in own:
        if each.number == number:
            if each.code.shape != fingerprint_of(projection).shape:
                raise ConfigurationError(
                    f"generation {number} of projection {projection.name!r} has other fields than this code: verify it "
                    "with the code that made it"
                )
            return each
    numbers = ", ".join(str(each.number) for each in own) or "none"
    raise ConfigurationError(f"projection {projection.name!r} has no generation {number}; it has: {numbers}")


async def verified(
    runtime: Runtime,
    projection: type[Projection],
    generation: Generation,
    *,
    share: float,
    seed: int = 0,
    limit: int = LISTED,
    quiet: bool,
) -> Verified:
    """Compare a generation with the log up to where it is, with a progress bar; the first `limit` differences.

    ConfigurationError if its documents have other fields than this code's: they cannot be compared.
    """
    if generation.code.shape != fingerprint_of(projection).shape:
        raise ConfigurationError(
            f"generation {generation.number} of projection {projection.name!r} has other fields than this code: verify "
            "it with the code that made it"
        )
    until = min(generation.position, await runtime.event_store.head())
    with ProgressBar(f"{projection.name}: verifying generation {generation.number}", 1, quiet=quiet) as bar:
        verifier = await runtime.verifier(
            projection,
            generation.number,
            until=until,
            share=share,
            seed=seed,
            on_progress=lambda done, total, phase: bar.show(done, phase, total=total),
        )
        await runtime.read_store.refresh(projection.index(generation.number))
        differences: list[Difference] = []
        async for difference in verifier.differences():
            if len(differences) < limit:
                differences.append(difference)
    report: VerificationReport = verifier.report
    return Verified(
        projection=projection.name,
        generation=generation.number,
        position=report.head,
        documents=report.documents,
        differences_count=report.differences,
        differences=differences,
        parked=report.parked,
    )


async def _adopted(
    runtime: Runtime, projection: type[Projection], generation: Generation, result: Verified
) -> Verified:
    """After a full and clean verification the documents are this code's, whoever folded them."""
    code = fingerprint_of(projection)
    if generation.fits(code):
        return result
    adopted = await runtime.checkpoints.adopt(projection.name, generation.number, code)
    return msgspec.structs.replace(result, adopted=adopted)


def line_of(difference: Difference) -> str:
    """A difference in one line."""
    line = f"{difference.kind} {difference.id}: "
    if difference.fields:
        fields = (f"{each.name} is {each.found!r}, not {each.expected!r}" for each in difference.fields)
        return line + "; ".join(fields)
    if difference.reason is not None:
        return line + difference.reason
    return line + f"version {difference.found_version} in the store, {difference.expected_version} by the log"


def _show(result: Verified, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(result).decode())
        return
    for difference in result.differences:
        print(line_of(difference))
    if result.differences_count > len(result.differences):
        print(f"... and {result.differences_count - len(result.differences):,} more (--limit lists them)")
    for parked in result.parked:
        print(f"parked {parked.key}: since position {parked.position}, see `cqrskit parked show`")
    number = f"generation {result.generation} of {result.projection}"
    verdict = counted(result.differences_count, "difference") if result.differences_count else "all as the log says"
    compared = f"{counted(result.documents, 'document')} compared up to position {result.position:,}"
    print(f"{number}: {compared}: {verdict}")
    if result.adopted:
        print("its documents are what this code folds, so no rebuild is due")
