"""A program: a Litestar endpoint that decodes a transfer, does nothing, and returns a reply of the ledger's shape."""

from litestar import Litestar, post

from cqrskit import load_settings
from cqrskit.cli.running import serve_application
from example_ledger.replies import PostingReply
from example_ledger.transfers import PostTransfer

__all__ = ["app"]


@post("/transfers")
async def nothing(data: PostTransfer) -> PostingReply:
    """Nothing."""
    return PostingReply(data.transfer_id, "posted", 1)


app = Litestar([nothing])

if __name__ == "__main__":
    serve_application(app, load_settings(port="0"))
