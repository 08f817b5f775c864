"""A published folder to the Hugging Face hub."""

from pathlib import Path

from irm_lite.core.errors import InputError, IrmLiteError, reason
from irm_lite.core.files.paths import is_hub_id


def require_login(repository: str) -> None:
    """Raise InputError where nothing could be pushed: called before the work, not after it."""
    from huggingface_hub import get_token

    if not is_hub_id(repository):
        raise InputError(f"--push {repository!r} is not a hub id", "write owner/name")
    if get_token() is None:
        raise InputError(
            "nobody is logged in to the hub on this machine", "hf auth login, or set HF_TOKEN to a token that may write"
        )


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Make the repository if it is not there and upload the folder as one commit; its address.

    Raises IrmLiteError where the hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(folder_path=folder, repo_id=repository, commit_message=f"Published by irm-lite: {folder.name}")
    except HfHubHTTPError as error:
        hint = "log in as somebody who may write there: hf auth login"
        raise IrmLiteError(f"the hub refuses {repository} ({reason(error)})", hint) from None
    except (OfflineModeIsEnabled, OSError) as error:  # of the connection
        raise IrmLiteError(
            f"the hub cannot be reached ({reason(error)})", f"the folder {folder} is written; push it later"
        ) from None
    return str(done.commit_url)
