"""What the generated data of all providers is made of: words, telephone numbers and times.

Each provider's records are beside its emulator, in `NAME_data.py`. They are seeded, and no
one's data: names are departments and purposes, e-mail addresses end in example.com (RFC 2606), and
telephone numbers come from ranges reserved for fiction (Ofcom, Bundesnetzagentur, NANP 555-01xx,
ARCEP, ACMA) or end in `****`, as the numbers in Alibaba's API reference do.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

Record = dict[str, Any]

RandomOf = Callable[[str], Random]
"""The name of a list → its own generator, so that the size of one list changes no other."""

NEWEST = datetime(2025, 12, 31, 18, 0, tzinfo=UTC)
"""No generated time is later, so that a change made by a test sorts after all of them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many records the lists get; the defaults give most lists several pages.

    `flows`   per provider, and in each Alibaba instance.
    `objects` of lists of run-time objects, such as Twilio's channels.
    `lists`   of single lists, by "provider.stream", instead of what follows from the two.
    """

    flows: int = 240
    objects: int = 3000
    lists: Mapping[str, int] = field(default_factory=dict)

    def of(self, stream: str, default: int) -> int:
        """Return the size of one list: the one in `lists`, otherwise `default`."""
        return self.lists.get(stream, default)


EMPTY = Sizes(0, 0)
"""For tests that add their own records."""


def random_of(seed: int, name: str) -> Random:
    """Return the generator of the list called `name`."""
    return Random(f"{seed} {name}")  # noqa: S311  (not for secrets)


LANGUAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "en-US": (
        ("Billing", "Sales", "Returns", "Technical Support", "Claims", "Pharmacy", "Fraud Desk"),
        ("Main Line", "After Hours", "Holiday Greeting", "Callback", "VIP Queue", "Survey"),
        "Thank you for calling. Please choose one of the following options.",
    ),
    "en-GB": (
        ("Accounts", "Bookings", "Complaints", "Deliveries", "Membership", "Lost Property"),
        ("Welcome Menu", "Out of Hours", "Bank Holiday", "Overflow", "Feedback"),
        "Welcome. Calls may be recorded. Please listen to the options.",
    ),
    "de-DE": (
        ("Kundendienst", "Rechnungen", "Störungsannahme", "Retouren", "Versand", "Verträge"),
        ("Begrüßung", "Außerhalb der Öffnungszeiten", "Feiertag", "Rückruf", "Zufriedenheit"),
        "Herzlich willkommen. Bitte wählen Sie.",
    ),
    "fr-FR": (
        ("Service client", "Facturation", "Réservations", "Livraisons", "Réclamations"),
        ("Accueil", "Fermeture", "Jours fériés", "Rappel", "Enquête de satisfaction"),
        "Bienvenue. Veuillez faire votre choix après le bip.",
    ),
    "es-ES": (
        ("Atención al cliente", "Facturación", "Pedidos", "Averías", "Devoluciones"),
        ("Menú principal", "Fuera de horario", "Festivos", "Llamada de vuelta", "Encuesta"),
        "Bienvenido. Elija una de las siguientes opciones, por favor.",
    ),
    "ja-JP": (
        ("ご請求窓口", "技術サポート", "ご予約センター", "配送受付", "修理受付"),
        ("代表番号", "営業時間外", "祝日案内", "折り返し予約", "満足度調査"),
        "お電話ありがとうございます。ご希望の番号を押してください。",
    ),
    "zh-CN": (
        ("客户服务", "账单咨询", "技术支持", "售后服务", "会员中心", "物流查询", "投诉受理"),
        ("主流程", "非工作时间", "节假日", "回拨预约", "满意度调查", "贵宾专线"),
        "您好,欢迎致电。请根据语音提示选择。",
    ),
}
"""Language → departments, purposes, a greeting."""

_WEIGHTS = (28, 14, 14, 8, 8, 14, 14)


def name(random: Random, language: str) -> str:
    """Invent the name of a flow."""
    departments, purposes, _ = LANGUAGES[language]
    return f"{random.choice(departments)} – {random.choice(purposes)}"


def any_language(random: Random) -> str:
    """Choose a language tag, some more often than others."""
    return random.choices(list(LANGUAGES), _WEIGHTS)[0]


AWKWARD_NAME = 'Say "hello", it\'s 100% 🦊\n\ttab \\ slash; {"not": json} -- 你好 \u202eabc'
"""A name with everything in it that naive code trips over."""

FICTION = (
    "+121255501xx",  # NANP: 555-0100 to 555-0199 of any area code
    "+141555501xx",
    "+130555501xx",
    "+442079460xxx",  # Ofcom: London, Manchester, freephone
    "+441614960xxx",
    "+448081570xxx",
    "+493023125xxx",  # Bundesnetzagentur: Berlin, Frankfurt, Cologne
    "+496990009xxx",
    "+492214710xxx",
    "+3319900xxxx",  # ARCEP
    "+6127010xxxx",  # ACMA
)
"""Ranges of E.164 numbers that are reserved for fiction; each `x` is any digit."""


def phone_numbers(random: Random, ranges: tuple[str, ...] = FICTION) -> Iterator[str]:
    """Yield numbers that reach no one, without repeats while the ranges have unused ones."""
    given: set[str] = set()
    while True:
        for _ in range(50):
            pattern = random.choice(ranges)
            number = re.sub("x", lambda _: random.choice("0123456789"), pattern)
            if number not in given:
                break
        given.add(number)
        yield number


def past(random: Random, days: int = 900) -> datetime:
    """Choose an instant in the `days` before NEWEST (UTC)."""
    return NEWEST - timedelta(seconds=random.randrange(days * 86_400))


def zulu(moment: datetime) -> str:
    """Write an instant in UTC as ISO 8601, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
