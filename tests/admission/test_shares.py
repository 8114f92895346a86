"""What tenants have had, and what their requests are expected to cost."""

from octoroute.admission.board import NO_TURN, WaitingBoard
from octoroute.admission.shares import NOBODY, TENANTS, Costs, Shares


def test_who_comes_late_starts_where_the_others_are() -> None:
    shares = Shares(memoryview(bytearray(80)).cast("d"))
    one, other = TENANTS, TENANTS + 1
    for _ in range(5):
        shares.charge(one, 100)
    assert (shares.start(one), shares.start(other)) == (500.0, 400.0)
    shares.charge(other, 50)
    assert shares.start(other) == 450.0


def test_what_is_corrected_makes_nobody_start_before_the_others() -> None:
    shares = Shares(memoryview(bytearray(80)).cast("d"))
    shares.charge(NOBODY, 1000)
    shares.charge(NOBODY, 1000)
    shares.correct(NOBODY, -500)
    assert shares.start(NOBODY) == 1500.0
    shares.correct(NOBODY, -1400)
    assert shares.start(NOBODY) == 1000.0


def test_a_request_is_expected_to_use_of_what_it_may_what_its_tenants_last_ones_did() -> None:
    costs = Costs()
    assert costs.expected("a", 4000) == 4000
    for _ in range(50):
        costs.learn("a", 4000, 40)
        costs.learn("b", 1000, 1000)
    assert costs.expected("a", 2000) == 20
    assert costs.expected("b", 2000) == 2000
    # Whom it does not know it takes for one of those that it knows.
    assert 20 < costs.expected("c", 2000) < 2000
    assert costs.expected("a", 1) == 1
    for _ in range(100):
        costs.learn("a", 4000, 4000)
    assert costs.expected("a", 2000) > 1900


def test_tenants_that_are_no_more_are_forgotten() -> None:
    costs = Costs()
    costs.learn("a", 100, 10)
    costs.learn("b", 100, 100)
    costs.keep(["b"])
    assert costs.expected("a", 100) == costs.expected("c", 100)
    assert costs.expected("b", 100) == 100


def test_the_board_tells_whose_turn_comes_first_elsewhere() -> None:
    board = WaitingBoard(3, tenants=4)
    assert board.first_elsewhere(0, "fast") == NO_TURN
    board.write(0, "fast", 2, NOBODY, 5.0)
    board.write(1, "fast", 1, TENANTS, 7.0)
    board.write(2, "fast", 1, TENANTS + 1, 6.0)
    board.write(2, "deep", 9, TENANTS, 1.0)
    assert board.waiting("fast") == 4
    assert board.first_elsewhere(0, "fast") == (0.0, 6.0)
    board.shares("fast").charge(TENANTS + 1, 10)
    assert board.first_elsewhere(0, "fast") == (0.0, 7.0)
    assert board.first_elsewhere(1, "fast") == (0.0, 5.0)
    board.clear(1)
    assert board.first_elsewhere(0, "fast") == (10.0, 6.0)
