"""What the supervisor writes down of sources, and any worker reads."""

from octoroute.observe.sources import REASONS, SOURCES, Source, SourceBoard

DNS, KUBERNETES = ("dns", "fast"), ("kubernetes", "deep")


def test_only_sources_that_are_followed_are_told() -> None:
    board = SourceBoard()
    assert list(board.read()) == []
    board.follow([KUBERNETES, DNS])
    assert list(board.read()) == [Source("dns", "fast", 0, 0.0, ""), Source("kubernetes", "deep", 0, 0.0, "")]


def test_a_success_ends_a_failure_and_servers_stay_as_they_were_told() -> None:
    board = SourceBoard()
    board.follow([DNS])
    board.note_servers(DNS, 3)
    board.note_success(DNS, 1795428000.5)
    for reason in REASONS:
        board.note_failure(DNS, reason)
        assert list(board.read()) == [Source(*DNS, 3, 1795428000.5, reason)]
    board.note_success(DNS, 1795428009.0)
    assert list(board.read()) == [Source(*DNS, 3, 1795428009.0, "")]


def test_a_source_that_comes_back_has_nothing_of_what_it_had() -> None:
    board = SourceBoard()
    board.follow([DNS, KUBERNETES])
    for place in (DNS, KUBERNETES):
        board.note_servers(place, 2)
    board.follow([KUBERNETES])
    # Word that came too late.
    board.note_servers(DNS, 9)
    assert list(board.read()) == [Source(*KUBERNETES, 2, 0.0, "")]
    board.follow([DNS, KUBERNETES])
    assert list(board.read()) == [Source(*DNS, 0, 0.0, ""), Source(*KUBERNETES, 2, 0.0, "")]


def test_every_kind_of_source_has_its_place() -> None:
    board = SourceBoard()
    places = [(source, tier) for source in SOURCES for tier in ("fast", "balanced", "deep")]
    board.follow(places)
    for at, place in enumerate(places):
        board.note_servers(place, at)
    assert [each.servers for each in board.read()] == list(range(6))
