"""Who may move: take-over, release, leases that died."""

from __future__ import annotations

import pytest

from hal.motion import GateClosedError, Resource
from hal.types import SpecError

GO = [1.0, 0.1, 0.0, 0.3, 0.0, 0.5, 0.0]
BACK = [-0.5, 0.1, 0.0, -0.3, 0.0, 0.5, 0.0]


def test_take_over_new_owner_first_and_the_old_release_does_not_halt_it(bench):
    old = bench.lease(owner="pick")
    bench.stream(old, GO, 0.4)
    new = bench.lease(owner="retreat")
    bench.submit(new, BACK)
    late = bench.submit(old, GO)
    bench.gate.release(old)
    bench.gate.hold(old)
    bench.sleep(0.04)
    assert not bench.gate.holds(old, Resource.ARM)
    assert bench.gate.holds(new, Resource.ARM)
    assert (late.accepted, late.reasons) == (False, ("no_lease",))
    assert bench.counts == {"taken_over": 1, "dead_release": 1, "no_lease": 2}
    bench.stream(new, BACK, 2.0)
    assert bench.last.qpos[0] == pytest.approx(-0.5)
    assert bench.last.base_velocity[0] == pytest.approx(-0.3)
    assert bench.gate.fault(old) is None
    bench.assert_lawful()


def test_taking_one_resource_ends_the_whole_lease_and_rests_the_other(bench):
    both = bench.lease()
    bench.stream(both, GO, 0.4)
    arm = bench.lease(Resource.ARM)
    bench.submit(arm, GO)
    bench.sleep(0.005)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert not bench.gate.holds(both, Resource.BASE)
    bench.assert_lawful()


def test_new_lease_rests_until_its_first_command(bench):
    bench.stream(bench.lease(), GO, 0.2)
    bench.lease()
    bench.sleep(1.0)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert bench.robot.written[-1].qpos.tolist() == bench.robot.written[-2].qpos.tolist()
    assert bench.last.qpos[0] < 0.9
    assert bench.counts == {"taken_over": 1}
    bench.assert_lawful()


def test_release_brings_to_rest_and_is_idempotent(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.gate.release(lease)
    bench.gate.release(lease)
    bench.sleep(0.005)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    bench.sleep(0.5)
    rest = bench.last.qpos
    bench.sleep(0.5)
    assert bench.last.qpos.tolist() == rest.tolist()
    assert bench.counts == {}
    bench.assert_lawful()


def test_dimensions_without_a_lease_are_dropped_and_said(bench):
    lease = bench.lease(Resource.ARM)
    results = bench.stream(lease, GO, 1.0)
    assert all(result.accepted and result.reasons == ("no_lease",) for result in results)
    assert results[-1].sent.tolist() == [1.0, 0.1, 0.0, 0.0, 0.0, 0.5, 0.0]
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert bench.last.qpos[0] == pytest.approx(1.0)
    base = bench.lease(Resource.BASE)
    sent = bench.stream(base, BACK, 0.4)[-1].sent
    assert sent.tolist() == pytest.approx([1.0, 0.1, 0.0, -0.3, 0.0, 0.5, 0.0])
    assert bench.last.qpos[0] == pytest.approx(1.0)
    assert bench.last.base_velocity[0] == pytest.approx(-0.3)
    assert bench.gate.holds(lease, Resource.ARM)


def test_a_lease_that_the_robot_cannot_give(bench, make_bench):
    with pytest.raises(SpecError, match="needs the base, and robot bench has none"):
        make_bench(base=False).lease(Resource.BASE)
    with pytest.raises(SpecError, match="no camera 'side'; it has front, wrist"):
        bench.lease(sensors=("side",))
    with pytest.raises(ValueError, match="lease of nothing"):
        bench.gate.acquire("x", [])


def test_close_brakes_and_lets_nothing_through(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.gate.close()
    bench.gate.close()
    written = len(bench.robot.written)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert bench.robot.written[-1].qpos.tolist() == bench.robot.written[-2].qpos.tolist()
    assert bench.submit(lease, GO).reasons == ("no_lease",)
    bench.sleep(1.0)
    assert len(bench.robot.written) == written
    with pytest.raises(GateClosedError):
        bench.lease()
    with pytest.raises(GateClosedError):
        bench.gate.start()
    bench.assert_lawful()


def test_close_before_anything_was_sent_sends_nothing(bench):
    bench.gate.close()
    assert bench.robot.written == []
