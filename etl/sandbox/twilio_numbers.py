"""Telephone numbers as Twilio's REST API of 2010 shows them: its own times and page links."""

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from etl.sandbox.data import Record


def stamp(seconds: float) -> str:
    """Write seconds since 1970 UTC as this API does: RFC 2822."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))


def sortable(text: str) -> str:
    """Return a text that sorts as these times do; one that is no such time sorts by itself."""
    try:
        return parsedate_to_datetime(text).astimezone(UTC).isoformat()
    except ValueError:
        return text


def number(sid: str, account_sid: str, phone_number: str, at: str, **members: object) -> Record:
    """Return a row of IncomingPhoneNumbers.json that reaches nothing, changed by `members`.

    What is not set is "" or null, as in the document's example.
    """
    return {
        "sid": sid,
        "account_sid": account_sid,
        "phone_number": phone_number,
        "friendly_name": phone_number,
        "address_requirements": "none",
        "address_sid": None,
        "api_version": "2010-04-01",
        "beta": False,
        "bundle_sid": None,
        "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
        "date_created": at,
        "date_updated": at,
        "emergency_status": "Active",
        "emergency_address_sid": None,
        "emergency_address_status": "unregistered",
        "identity_sid": None,
        "origin": "twilio",
        "sms_application_sid": "",
        "sms_fallback_method": "POST",
        "sms_fallback_url": "",
        "sms_method": "POST",
        "sms_url": "",
        "status": "in-use",
        "status_callback": "",
        "status_callback_method": "POST",
        "trunk_sid": None,
        "type": "local",
        "uri": f"{path(account_sid)}/{sid}.json",
        "voice_application_sid": "",
        "voice_caller_id_lookup": False,
        "voice_fallback_method": "POST",
        "voice_fallback_url": None,
        "voice_method": "POST",
        "voice_receive_mode": "voice",
        "voice_url": "",
        **members,
    }


def path(account_sid: str) -> str:
    """Return the path of an account's numbers, without the `.json` at its end."""
    return f"/2010-04-01/Accounts/{account_sid}/IncomingPhoneNumbers"


def address(sid: str, account_sid: str, kind: str, at: str, **members: object) -> Record:
    """Return a row of Configuration/Addresses; `kind` is its `type`."""
    return {
        "sid": sid,
        "account_sid": account_sid,
        "type": kind,
        "address": None,
        "friendly_name": None,
        "address_country": None,
        "auto_creation": {"enabled": True, "type": "default"},
        "date_created": at,
        "date_updated": at,
        "url": f"https://conversations.twilio.com/v1/Configuration/Addresses/{sid}",
        **members,
    }
