"""Runs the calls to models that the scoring of one batch asks for (docs/decisions/0003-scoring-is-a-generator.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator

from failsoft.workers.scoring.plan import Call, CallResult, Scored


async def run_calls(
    steps: Generator[Call, CallResult, Scored],
    run: Callable[[Call], Awaitable[CallResult]],
    on_result: Callable[[Call, CallResult], None],
) -> Scored:
    """Run one call after the other, and return the verdicts.

    Args:
        steps: the scoring of the batch: yields each call, is sent its result, and returns the verdicts.
        run: runs a call.
        on_result: called with each call and its result.
    """
    try:
        call = next(steps)
        while True:
            result = await run(call)
            on_result(call, result)
            call = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
