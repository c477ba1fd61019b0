# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models that are pulled by another name than their own, and what has that name already."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from catalog_rig import Source, World
from catalog_runs import Host, write
from catalog_samples import declare, hexa, make_store, offer, offered, peer, plan_of
from store_samples import blob_path, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_engine as engines
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name

SOURCE = "r:5000/library/one"
THERE = f"{SOURCE}:latest"
ONE = {"name": "one", "source": SOURCE}
LOGIN = Offer("registry r", "registry")
UNREADABLE = {parse_name(SOURCE).manifest: "it is empty"}


def done(plan):
    return [(step.action, step.target) for step in plan.changes]


def undeclared(plan):
    return [str(model.name) for model in plan.undeclared]


REMOVED = ("remove", THERE)
PULLED = ("pull", "one:latest")
FOLLOWED = {**ONE, "update": True}
PINNED = {**ONE, "digest": hexa(SOURCE)[:12]}
# The declaration, the models that are there, what sources offer, what is done.
LEFT = {
    "the model is whole and has the same": (declare(ONE), {"one": "ac"}, (), [REMOVED]),
    "the model has to come and is the same": (declare(ONE), {}, [offer("ac")], [PULLED, REMOVED]),
    "a peer gives the same": (
        declare(ONE),
        {},
        [peer("ac"), offer("ac")],
        [PULLED, REMOVED],
    ),
    "its model moves on": (
        declare(FOLLOWED),
        {"one": "ac"},
        [offer("bc")],
        [REMOVED, ("update", "one:latest")],
    ),
    "its update was cut off": (
        declare(FOLLOWED),
        {"one": "bc"},
        [offer("ac")],
        [("update", "one:latest"), REMOVED],
    ),
    "another model that comes by that name has it": (
        declare(ONE, {"name": "two", "source": SOURCE}),
        {"two": "ac"},
        [offer("bc")],
        [REMOVED, PULLED],
    ),
    "it has the pin, and the registry tells nothing": (
        declare(PINNED),
        {},
        [LOGIN],
        [PULLED, REMOVED],
    ),
    "all that is undeclared goes": (
        declare(ONE, exclusive=True),
        {"one": "ac"},
        (),
        [REMOVED],
    ),
}


@pytest.mark.parametrize("case", LEFT, ids=str)
def test_what_an_interrupted_pull_left_goes(case):
    declaration, models, offers, expected = LEFT[case]
    plan = plan_of(declaration, make_store({**models, SOURCE: "ac"}), offered("one", *offers))
    assert done(plan) == expected
    [step] = [step for step in plan.changes if step.action == words.REMOVE]
    assert step.reason == "an interrupted pull left it"
    assert step.keeper == ("two:latest" if "two" in models else "one:latest")
    assert (step.freed, step.frees) == (0, ())
    assert undeclared(plan) == []


TAKEN = (
    f"registry r: it is pulled by the name {THERE}, and a model that nobody declared of that name "
    "is in the way, which stays: declare, forbid or remove it"
)
BROKEN = TAKEN.replace("a model that nobody declared", "an unreadable manifest (it is empty)")
OTHER_PIN = {**ONE, "digest": hexa("else")[:12]}
# The declaration, the models that are there, what sources offer, what is said of the declared one.
TAKEN_CASES = {
    "it is another one": (declare(ONE), {}, [offer("ac")], f"it is not there, and {{}}{TAKEN}"),
    "a peer has another version than the registry": (
        declare(ONE),
        {},
        [offer("ac"), peer("bs", "old")],
        f"it is not there, and {{}}{TAKEN}; peer llm-02 has {hexa('old')[:12]}",
    ),
    "the registry tells nothing": (
        declare(ONE),
        {},
        [LOGIN],
        f"it is not there, and {{}}{TAKEN}",
    ),
    "it hasn't the pin, and the registry tells nothing": (
        declare(OTHER_PIN),
        {},
        [LOGIN],
        f"it is not there, and {{}}{TAKEN}",
    ),
    "the model has moved on": (
        declare(FOLLOWED),
        {"one": "ac"},
        [offer("as")],
        f"the registry has {hexa('remote')[:12]}, and {{}}{TAKEN}",
    ),
}


@pytest.mark.parametrize("case", TAKEN_CASES, ids=str)
def test_nothing_is_pulled_over_what_somebody_else_has(case):
    declaration, models, offers, reason = TAKEN_CASES[case]
    store = make_store({**models, SOURCE: "bc"})
    plan = plan_of(declaration, store, offered("one", *offers))
    assert done(plan) == []
    [step] = plan.unavailable
    assert step.reason == reason.format("no source can give it: ")
    assert undeclared(plan) == [THERE]


def test_an_unreadable_manifest_is_not_pulled_over_either():
    store = make_store({}, corrupt=UNREADABLE)
    plan = plan_of(declare(ONE), store, offered("one", offer("ac")))
    assert done(plan) == []
    assert plan.unavailable[0].reason.endswith(BROKEN)
    goes = declare(ONE, forbidden=[SOURCE])
    assert done(plan_of(goes, store, offered("one", offer("ac")))) == [REMOVED, PULLED]


def test_manifests_that_differ_more_than_in_case_are_no_leftover():
    store = make_store({"one": "ac", SOURCE: "ac"})
    store.twins = [make_store({SOURCE.upper(): "bc"}).models[parse_name(SOURCE).key]]
    plan = plan_of(declare(ONE), store)
    assert (done(plan), undeclared(plan)) == ([], [THERE])
    store.models.pop(parse_name("one").key)
    plan = plan_of(declare(ONE), store, offered("one", offer("ac")))
    assert plan.unavailable[0].reason.endswith(TAKEN)


def test_a_kept_version_is_no_leftover():
    kept = "one:latest-hx-previous"
    declaration = declare("one", {"name": "x", "source": kept}, exclusive=True)
    store = make_store({"one": "s", kept: "ac"})
    plan = plan_of(declaration, store, offered("x", offer("ac")))
    assert done(plan) == []
    assert [str(model.name) for model in plan.kept_versions] == [kept]
    assert f"pulled by the name {kept}" in plan.unavailable[0].reason


def test_a_model_of_the_sources_name_stays_beside_the_declared_one():
    plan = plan_of(declare(ONE), make_store({"one": "ac", SOURCE: "bc"}))
    assert [(step.action, step.reason) for step in plan.steps] == [("adopt", "as declared")]
    assert undeclared(plan) == [THERE]
    same = plan_of(
        declare(FOLLOWED), make_store({"one": "ac", SOURCE: "bc"}), offered("one", offer("ac"))
    )
    assert (done(same), same.unavailable) == ([], [])


def test_another_source_gives_what_cannot_be_pulled():
    plan = plan_of(
        declare(ONE), make_store({SOURCE: "bc"}), offered("one", offer("ac"), peer("ac"))
    )
    [step] = plan.changes
    assert (step.action, step.sources) == ("pull", ("peer llm-02",))
    assert undeclared(plan) == [THERE]


@pytest.mark.parametrize("options", [{"forbidden": [SOURCE]}, {"exclusive": True}], ids=str)
def test_what_goes_anyway_is_not_in_the_way(options):
    plan = plan_of(declare(ONE, **options), make_store({SOURCE: "bs"}), offered("one", offer("ac")))
    assert done(plan) == [REMOVED, PULLED]
    assert plan.changes[0].keeper == ""


def test_what_goes_anyway_is_pulled_over_and_leaves_its_old_blobs():
    declaration = declare(ONE, forbidden=[SOURCE], prune_orphans=True)
    store = make_store({SOURCE: "bc"})
    plan = plan_of(declaration, store, offered("one", offer("ac")))
    orphan = ("prune_orphan", f"blobs/sha256-{hexa('b')}")
    assert done(plan) == [PULLED, REMOVED, orphan]
    assert [step.freed for step in plan.changes] == [0, 0, 2000]
    plan = plan_of(declaration, store, offered("one", peer("ac"), offer("ac")))
    assert done(plan) == [PULLED, REMOVED]
    assert plan.changes[1].freed == 2000


@pytest.mark.parametrize(("brought", "goes"), [("as", True), ("bs", False)])
def test_what_was_left_goes_when_another_download_makes_its_model_whole(brought, goes):
    store = make_store({"one": "ac", SOURCE: "ac"}, "c")
    plan = plan_of(declare(ONE, "two"), store, offered("two", offer(brought)))
    assert [step.target for step in plan.unavailable] == ([] if goes else ["one:latest"])
    assert done(plan) == [("pull", "two:latest"), *([REMOVED] if goes else [])]
    assert undeclared(plan) == ([] if goes else [THERE])


def test_what_came_by_a_name_that_cannot_be_pulled_by_is_kept():
    """It may be all that there is of the model."""
    parts = make_store({SOURCE: "bc"}, "bcn")
    plan = plan_of(declare(ONE, prune_orphans=True), parts, offered("one", offer("ac")))
    assert done(plan) == []
    assert len(plan.orphans) == 1


def test_a_declared_model_comes_along_when_another_is_pulled_by_its_name():
    declaration = declare(ONE, SOURCE)
    store = make_store({SOURCE: "bc"})
    assert catalog.to_look_up(declaration, store) == list(declaration.wanted)
    offers = {**offered("one", offer("ac")), **offered(SOURCE, offer("ac"))}
    plan = plan_of(declaration, store, offers)
    assert done(plan) == [PULLED, ("update", THERE)]
    assert plan.changes[1].reason.endswith(", and one:latest is pulled by its name")
    assert plan.bytes_to_download == 1000
    same = make_store({SOURCE: "ac"})
    assert done(plan_of(declaration, same, offers)) == [PULLED]
    both = make_store({"one": "as", SOURCE: "bc"})
    assert catalog.to_look_up(declaration, both) == []
    assert done(plan_of(declaration, both, offers)) == []


@pytest.mark.parametrize(
    ("models", "options", "why"),
    [
        ([ONE, {"name": SOURCE, "digest": hexa("x")}], {}, f"has the pin {hexa('x')[:12]}"),
        ([{"name": SOURCE, "source": "q:1/l/z"}, ONE], {}, "comes from q:1/l/z:latest"),
        (
            ["one", {"name": SOURCE, "digest": hexa("x")}],
            {"registry": "r:5000"},
            f"has the pin {hexa('x')[:12]}",
        ),
    ],
)
def test_a_source_that_is_another_declared_model(models, options, why):
    with pytest.raises(HostError) as caught:
        declare(*models, **options)
    assert str(caught.value) == (
        f"one:latest is pulled by the name {THERE}, and the declared model {THERE}, which {why}, "
        f"would be replaced by that. Give one:latest another source, or {THERE} neither a digest "
        "nor a source."
    )


def test_a_source_that_is_declared_without_a_pin_is_shared():
    assert len(declare(ONE, SOURCE).wanted) == 2


WEIGHTS = b"the weights"


def stopped(_name, _count):
    raise HostError("no byte came.")


def test_what_was_left_stays_until_its_model_is_whole(tmp_path):
    write_model(tmp_path, SOURCE, WEIGHTS)
    source = Source(tmp_path, {"one": [WEIGHTS]})
    source.trouble = stopped
    world = World(tmp_path, ONE, sources=[source])
    pull, remove = world.apply()
    assert (pull.ok, remove.ok) == (False, False)
    assert remove.detail == f"{THERE} was kept: one:latest isn't whole."
    assert world.engine.asked == []
    source.trouble = lambda _name, _count: None
    assert [outcome.ok for outcome in world.apply()] == [True, True]
    assert world.left() == []
    assert blob_path(tmp_path, WEIGHTS).exists()


def test_what_was_left_is_looked_at_again_before_it_goes(tmp_path):
    for name in ("one", SOURCE):
        write_model(tmp_path, name, WEIGHTS)
    world = World(tmp_path, ONE)
    [remove] = world.apply(lambda: write_model(tmp_path, "one", b"others"))
    assert remove.detail == f"{THERE} was kept: one:latest has other blobs."
    write_model(tmp_path, "one", WEIGHTS)
    [remove] = world.apply((tmp_path / parse_name(SOURCE).manifest).unlink)
    assert remove.ok
    assert world.left() == []


@pytest.fixture
def host(tmp_path):
    """Have a host, and a registry with a model that is declared under another name."""
    host = Host(tmp_path)
    write(host.registry, SOURCE, WEIGHTS)
    return host


def asked(host, what):
    return [call[1:] for call in host.api.asked if call[0] == what]


def stored(host):
    return sorted(
        str(path.relative_to(host.root / "manifests"))
        for path in (host.root / "manifests").rglob("*")
        if path.is_file()
    )


def held(host):
    """Return the manifests and the blobs."""
    own = (str(host.root / "manifests"), str(host.root / "blobs"))
    return {path: what for path, what in host.files().items() if path.startswith(own)}


NAMED, BY_SOURCE = "registry.ollama.ai/library/one/latest", "r:5000/library/one/latest"


def test_a_run_leaves_what_somebody_has_under_the_sources_name(host):
    write_model(host.root, SOURCE, b"something else")
    before = held(host)
    for check in (True, False):
        result = host.run(ONE, check=check)
        assert TAKEN.replace("registry r:", "registry r:5000:") in result["msg"]
        assert result["undeclared"] == [THERE]
        assert result["changed"] is False
    assert held(host) == before
    assert (asked(host, "pull"), asked(host, "delete")) == ([], [])


def test_what_somebody_pulls_during_a_run_is_left_alone(host):
    host.api.tags = tags_once(host, lambda: write_model(host.root, SOURCE, b"something else"))
    result = host.run(ONE)
    assert f"one:latest can't be pulled: it is pulled by the name {THERE}" in result["msg"]
    assert (asked(host, "pull"), asked(host, "delete")) == ([], [])
    assert stored(host) == [BY_SOURCE]


def tags_once(host, work):
    """Do something after the plan was made, when the engine is asked what it serves."""

    done = []

    def tags():
        listed = type(host.api).tags(host.api)
        if not done:
            done.append(work())
        return listed

    return tags


def test_a_run_that_was_cut_off_before_the_copy_is_completed(host):
    copy, host.api.copy = host.api.copy, refuse
    assert "copying failed" in host.run(ONE)["msg"]
    assert stored(host) == [BY_SOURCE]
    host.api.copy = copy
    predicted, result = host.run(ONE, check=True), host.run(ONE)
    assert "msg" not in result
    assert (result["plan"], result["catalog"]) == (predicted["plan"], predicted["catalog"])
    assert stored(host) == [NAMED]
    assert asked(host, "pull") == [(THERE,)]  # it was there, whole, and nothing came again
    assert not host.run(ONE)["changed"]


def refuse(*_names):
    raise HostError("copying failed: no.")


def test_a_run_that_was_cut_off_before_the_source_went_is_completed(host):
    host.run(ONE)
    write(host.root, SOURCE, WEIGHTS)
    result = host.run(ONE)
    assert [outcome["action"] for outcome in result["outcomes"]] == ["remove"]
    assert stored(host) == [NAMED]
    assert not host.run(ONE)["changed"]


def test_a_leftover_that_lacks_a_blob_is_pulled_again(host):
    write(host.root, SOURCE, WEIGHTS)
    blob_path(host.root, WEIGHTS).unlink()
    assert "msg" not in host.run(ONE)
    assert stored(host) == [NAMED]
    assert asked(host, "pull") == [(THERE,)]


def test_a_declared_source_stays(host):
    assert "msg" not in host.run(ONE, SOURCE)
    assert stored(host) == [BY_SOURCE, NAMED]
    assert asked(host, "delete") == []
    assert not host.run(ONE, SOURCE)["changed"]


class Waiting:
    """A lock that tells when somebody comes to it."""

    def __init__(self, arrived):
        self._lock = threading.Lock()
        self._arrived = arrived

    def __enter__(self):
        self._arrived()
        self._lock.acquire()

    def __exit__(self, *_unused):
        self._lock.release()


def test_two_models_that_are_pulled_by_one_name_take_turns(host, monkeypatch):
    """The one that is ready first takes the name away."""
    second, gone, comings = threading.Event(), threading.Event(), []

    def arrived():
        comings.append(1)
        if len(comings) == 4:  # each of the two comes to two locks
            second.set()

    monkeypatch.setattr(
        engines, "threading", SimpleNamespace(Lock=lambda: Waiting(arrived)), raising=True
    )
    pull, delete, pulls = host.api.pull, host.api.delete, []

    def pull_in_turn(name, **options):
        pulls.append(name)
        pull(name, **options)
        if len(pulls) == 1:
            assert second.wait(20)
        else:
            second.set()
            assert gone.wait(20)

    def delete_and_tell(name):
        delete(name)
        gone.set()

    host.api.pull, host.api.delete = pull_in_turn, delete_and_tell
    result = host.run(ONE, {"name": "other", "source": SOURCE}, parallel=2)
    assert "msg" not in result
    assert stored(host) == [NAMED, "registry.ollama.ai/library/other/latest"]
