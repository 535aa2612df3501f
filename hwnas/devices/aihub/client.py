"""The `qai-hub` client: its account, and its failures in our words."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hwnas.devices.queue import QueueBusyError
from hwnas.errors import DeviceError, DeviceLostError, HwnasError, PreparationError

if TYPE_CHECKING:
    import qai_hub as hub

HOW_TO_SIGN_IN = (
    "sign in at https://workbench.aihub.qualcomm.com, copy the token from Account > Settings > API Token, "
    "then: qai-hub configure --api_token TOKEN"
)


def account() -> hub.Client:
    """A client with the user's token.

    Raises:
        DeviceError: there is no token, or its file is damaged.
    """
    import qai_hub as hub
    from qai_hub.api_utils import get_config_path

    try:
        client = hub.Client()
        client.set_verbose(False)  # reads the file as well
    except Exception as error:  # what is wrong with the file decides what is raised
        reason = "is missing" if isinstance(error.__context__, FileNotFoundError) else "has no usable token"
        raise DeviceError(
            f"Qualcomm AI Hub needs an API token: {get_config_path()} {reason}", HOW_TO_SIGN_IN
        ) from error
    return client


@contextlib.contextmanager
def talking(purpose: str) -> Iterator[None]:
    """Translate the client's failures, and keep what it prints away from stdout, where only data goes.

    Args:
        purpose: what is being tried, as the end of "could not".

    Raises:
        QueueBusyError: a rate limit or an outage. The client has retried for half a minute by then, and has
            obeyed Retry-After where it looks; it tells neither the header nor the status any further.
        DeviceLostError: the token is refused.
        PreparationError: the hub refuses what was asked.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from qai_hub.client import Error, InternalError, RateLimitedError
    from qai_hub.public_rest_api import APIException

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except HwnasError:
        raise
    except RateLimitedError as error:
        raise QueueBusyError(f"AI Hub limits the rate of requests: {_plain(error)}", "wait") from error
    except InternalError as error:
        raise QueueBusyError(f"AI Hub cannot be reached: {_plain(error)}", "wait") from error
    except (BotoCoreError, ClientError) as error:
        raise QueueBusyError(f"AI Hub's storage cannot be reached: {_plain(error)}", "wait") from error
    except (Error, APIException, ValueError) as error:
        if "Failed to authenticate" in str(error):
            raise DeviceLostError("Qualcomm AI Hub refuses the API token", HOW_TO_SIGN_IN) from error
        raise PreparationError(
            f"AI Hub refuses to {purpose}: {_plain(error)}", "change what it names"
        ) from error


def _plain(error: Exception) -> str:
    """The client's message without the box that it draws around it."""
    text = re.sub(r"[┌┐└┘─|\s]+", " ", str(error)).strip()
    return text.removeprefix("Internal API failure. ").removesuffix(".")
