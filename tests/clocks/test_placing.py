"""Where a pod stands is the agent's word: believed of that pod only, and of this process's question only."""

from __future__ import annotations

import socket
from collections.abc import Callable

from joulepath_clocks.channel.words import SOCKET_NAME, Asked, Placed, decode, encode
from joulepath_clocks.peers.peer import JobPod
from tests.agent.room import Process, Room


def question(agent: socket.socket) -> Asked:
    """The first that the clocks ask; until they are well, peers aren't."""
    while not isinstance(word := decode(agent.recv(1 << 20)), Asked):
        pass
    return word


def test_an_answer_for_another_pod_or_to_another_process_places_nobody(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    made.warden()
    numbers = []

    def answered(pod: str, of: int = 0) -> dict[str, object]:
        clocks: Process = made.begin_clocks(made.socket)
        assert clocks.hear() == {}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
            agent.settimeout(60)
            agent.connect(str(made.state_dir / SOCKET_NAME))
            peer = made.peer(iterations=10)
            numbers.append(question(agent).number)
            for number in (of, numbers[-1]):
                uid = "honest" if number == of else pod
                agent.send(encode(Placed(number, JobPod("default", "pod", uid, "job", "job-uid"))))
            reply: dict[str, object] = peer.hear()
        clocks.end()
        return reply

    assert answered("a")["accepted"]
    refusal = answered("honest", numbers[0])
    assert not refusal["accepted"]
    assert "another pod" in str(refusal["reason"])
    assert numbers[1] not in range(numbers[0] - 1000, numbers[0] + 1000), "an old answer is an answer to nobody"
