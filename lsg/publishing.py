"""--push_to_hub: copy the output to the Hugging Face Hub."""

import glob
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from .errors import ConversionError, reported_as
from .output.contents import FILE_LIST, read_list


@dataclass(frozen=True)
class Target:
    """A repository to push to.

    Args:
        api: the client, with the token.
        repo: OWNER/NAME on the Hub.
        private: whether it has to be private.
    """

    api: HfApi
    repo: str
    private: bool

    def refuse_public(self) -> None:
        """Raise ConversionError if it has to be private, but exists and is public."""
        try:
            if self.private and not self.api.model_info(self.repo).private:
                raise ConversionError(f"push_to_hub: {self.repo} exists and is public; choose another name for private")
        except RepositoryNotFoundError:
            return  # it will be created


def check_target(name: str, token: str | None, private: bool) -> Target:
    """Return the repository of a name, after all checks that are possible before the conversion.

    Args:
        name: NAME or OWNER/NAME.
        token: None for the stored one, or that in HF_TOKEN.
        private: whether the repository has to be private.

    Raises:
        ConversionError: not the name of a repository, no token or an invalid one, or a public repository.
    """
    with reported_as("push_to_hub: a name, or OWNER/NAME, is expected", HFValidationError):
        validate_repo_id(name)
    if not (token or get_token()):
        raise ConversionError("push_to_hub: there is no token: pass --token, set HF_TOKEN, or run `hf auth login`")
    api = HfApi(token=token)
    with reported_as(f"push_to_hub: {name!r} cannot be pushed to"):  # the Hub's client has errors of many kinds
        owner = api.whoami()["name"]
        target = Target(api, name if "/" in name else f"{owner}/{name}", private)
        target.refuse_public()
    return target


def push(target: Target, folder: Path) -> dict[str, str]:
    """Upload the files that a conversion wrote into a folder, without the user's files that were kept there.

    Args:
        target: from `check_target`.
        folder: an output.

    Returns:
        The addresses of repository and commit.

    Raises:
        ConversionError: it was not pushed, or only in part.
    """
    listed = read_list(folder)
    wanted = [glob.escape(name) for name in (FILE_LIST, *(listed.files if listed else ()))]
    with reported_as(f"not pushed to {target.repo}"):
        url = target.api.create_repo(target.repo, private=target.private or None, exist_ok=True)
        target.refuse_public()  # again: it may have been created in between
        message = "Add a checkpoint converted to LSG attention"
        commit = target.api.upload_folder(
            repo_id=target.repo, folder_path=folder, allow_patterns=wanted, commit_message=message
        )
    return {"repository": str(url), "commit": str(commit.commit_url)}
