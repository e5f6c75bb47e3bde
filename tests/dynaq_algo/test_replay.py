"""Replay: every vector once, references counted, nothing lost and nothing kept too long."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import make_toy

from dynaq_algo import DynaQ
from dynaq_algo.layout import DecisionBatch
from dynaq_algo.planning import CandidatePairs, CrossedPairs, VisitedPairs, make_planning_source
from dynaq_algo.replay import CandidateReplay, InternedRows

D, K = 2, 3


def pairs_of(states, candidates):
    """Two numbers of each pair; few, so that they come again."""
    return np.array([[[s % 2, c % 3] for c in row] for s, row in zip(states, candidates, strict=True)], np.float32)


def decisions(states, candidates, masks=None):
    state = np.array([[s, -s] for s in states], np.float32)
    features = np.array([[[c, c + 0.5] for c in row] for row in candidates], np.float32)
    return DecisionBatch(state, features, None if masks is None else np.array(masks, bool))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.tuples(st.just("add"), st.integers(0, 90)), st.tuples(st.just("drop"), st.integers(0, 99)))),
    st.integers(0, 3),
)
def test_interned_rows_count_references_as_a_dict_would(commands, salt):
    table, held, ids = InternedRows(2, np.float32), Counter(), {}
    # Many rows, so that the table grows and buckets are shared.
    for value in range(70 * salt):
        held[1000 + value] += 1
        ids[1000 + value] = int(table.intern(np.array([[1000 + value, 0]]))[0])
    for command, number in commands:
        if command == "add":
            held[number] += 1
            place = int(table.intern(np.array([[number, 0]], np.float32))[0])
            assert ids.setdefault(number, place) == place
        elif held:
            value = sorted(held)[number % len(held)]
            freed = table.release(np.array([ids[value]]))
            held[value] -= 1
            assert list(freed) == ([] if held[value] else [ids[value]])
            if not held[value]:
                del held[value], ids[value]
    assert len(table) == len(held)
    for value, count in held.items():
        assert table.rows[ids[value]].tolist() == [value, 0]
        assert table.counts[ids[value]] == count


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.tuples(st.integers(0, 3), st.integers(0, 3)),  # next states of both environments
            st.lists(st.integers(0, 4), min_size=2 * K, max_size=2 * K),  # their next candidates
            st.tuples(st.booleans(), st.booleans()),  # terminated
            st.tuples(st.booleans(), st.booleans()),  # valid
            st.integers(0, K - 1),
        ),
        max_size=25,
    ),
    capacity=st.integers(2, 7),
    ids=st.booleans(),
    masked=st.booleans(),
    with_pairs=st.booleans(),
)
def test_the_ring_holds_what_a_list_would_and_frees_the_rest(data, capacity, ids, masked, with_pairs):
    replay = CandidateReplay(capacity, D, K, None if ids else 2, n_envs=2, n_pairs=2 if with_pairs else 0)
    kept = []

    def shown(states, candidates):
        masks = [[True, (s + c[1]) % 2 == 0, c[0] > 1] for s, c in zip(states, candidates, strict=True)]
        obs = decisions(states, candidates, masks if masked else None)
        obs = obs._replace(pairs=pairs_of(states, candidates)) if with_pairs else obs
        return obs._replace(candidates=np.array(candidates, np.int64)) if ids else obs

    obs = shown((0, 0), ([0] * K, [1] * K))
    for step, (states, candidates, terminated, valid, action) in enumerate(data):
        next_obs = shown(states, (candidates[:K], candidates[K:]))
        infos = [{"transition_valid": v} if not v else {} for v in valid]
        replay.add(obs, next_obs, np.array([action, 0]), np.array([step, -step]), np.array(terminated), infos)
        for i in range(2):
            if valid[i]:
                kept.append((obs.take([i]), next_obs.take([i]), (action, 0)[i], (step, -step)[i], terminated[i]))
        obs = next_obs if step % 3 else shown((1, 2), ([2] * K, [3] * K))
    kept = kept[-capacity:]

    assert len(replay) == len(kept)
    assert replay.has_terminated == any(row[4] for row in kept)
    order = np.arange(replay.n_added - len(kept), replay.n_added)
    found = replay[order % capacity]
    np.testing.assert_array_equal(found.serial, order)
    sets, masks = replay.candidate_sets(found.position)
    next_sets, next_masks = replay.candidate_sets(found.position, following=True)
    pairs, next_pairs = (replay.pair_sets(found.position, following=following) for following in (False, True))
    for i, (was, then, action, reward, terminated) in enumerate(kept):
        then = was if terminated else then
        np.testing.assert_array_equal(replay.state_rows(found.state_id[[i]]), was.state)
        np.testing.assert_array_equal(replay.state_rows(found.next_state_id[[i]]), then.state)
        np.testing.assert_array_equal(replay.candidate_rows(sets[[i]]), was.candidates)
        np.testing.assert_array_equal(replay.candidate_rows(next_sets[[i]]), then.candidates)
        np.testing.assert_array_equal(replay.candidate_rows(found.candidate_id[[i]]), was.candidates[:, action])
        assert (found.action[i], found.reward[i], found.terminated[i]) == (action, reward, terminated)
        np.testing.assert_array_equal(masks[[i]], np.ones((1, K)) if was.mask is None else was.mask)
        np.testing.assert_array_equal(next_masks[[i]], np.ones((1, K)) if then.mask is None else then.mask)
        if with_pairs:
            np.testing.assert_array_equal(pairs[[i]], was.pairs)
            np.testing.assert_array_equal(next_pairs[[i]], then.pairs)
            np.testing.assert_array_equal(found.pairs[[i]], was.pairs[:, action])
    if not with_pairs:
        assert pairs is next_pairs is found.pairs is None

    replay._forget()
    used = {row.state.tobytes() for was, then, *_, end in kept for row in (was, was if end else then)}
    assert len(replay.states) == len(used)
    assert replay.states.counts.sum() == replay.sets.counts.sum() == 2 * len(kept)
    if not ids:
        used = {
            c.tobytes() for was, then, *_, end in kept for row in (was, was if end else then) for c in row.candidates[0]
        }
        assert len(replay.candidates) == len(used)
        assert replay.candidates.counts.sum() == K * len(replay.sets)
    if with_pairs:
        table = replay._tables()["pairs"]
        used = {row.pairs.tobytes() for was, then, *_, end in kept for row in (was, was if end else then)}
        assert len(table) == len(used)
        assert table.counts.sum() == 2 * len(kept)


def test_ever_new_vectors_stay_bounded_by_the_ring():
    replay = CandidateReplay(50, D, K, 2)
    for step in range(2_000):
        obs, next_obs = (decisions([s], [[3 * s, 3 * s + 1, 3 * s + 2]]) for s in (step, step + 1))
        replay.add(obs, next_obs, np.array([0]), np.array([0.0]), np.array([False]))
    assert len(replay.states) <= 52
    assert replay.states.n_used <= 64
    assert replay.candidates.n_used <= 256


def test_a_transition_costs_bytes_and_not_candidate_matrices():
    k, d, n = 20, 768, 4_000
    rng = np.random.default_rng(0)
    users, jobs = (rng.normal(size=(count, d)).astype(np.float32) for count in (20, 100))
    replay = CandidateReplay(n, d, k, d)
    empty_tables = replay.states.nbytes + replay.candidates.nbytes
    for episode in range(n // 10):
        obs = DecisionBatch(users[[episode % 20]], jobs[None, rng.choice(100, k, replace=False)], None)
        for _ in range(10):
            replay.add(obs, obs, np.array([3]), np.array([0.5]), np.array([False]))
    tables = replay.states.nbytes + replay.candidates.nbytes
    assert tables < 2 * (120 * d * 4) + empty_tables
    # SB3's DictReplayBuffer stores 2 * (k + 1) * d * 4 = 129,024.
    last_seen = replay._states_seen.nbytes + replay._sets_seen.nbytes
    assert (replay.nbytes - tables - last_seen) / n < 60


@pytest.mark.parametrize("n_pairs", [0, 2])
def test_a_saved_store_is_the_same_and_goes_on_the_same(tmp_path, n_pairs):
    stores = [CandidateReplay(7, D, K, 2, n_pairs=n_pairs), CandidateReplay(7, D, K, 2, n_pairs=n_pairs)]
    rng = np.random.default_rng(0)

    def shown(state, candidates):
        obs = decisions([state], [candidates])
        return obs._replace(pairs=pairs_of([state], [candidates])) if n_pairs else obs

    def step(replay, draw):
        obs, next_obs = shown(draw[0], draw[1:4]), shown(draw[4], draw[5:8])
        infos = [{"reward_components": {"cosine": float(draw[0])}, "applicant_id": draw[0]} if draw[0] else {}]
        replay.add(obs, next_obs, draw[8:9] % K, draw[:1].astype(float), draw[9:] == 0, infos)

    draws = rng.integers(4, size=(40, 10))
    for draw in draws[:20]:
        step(stores[0], draw)
    stores[0].save(tmp_path / "replay.npz")
    stores[1].load(tmp_path / "replay.npz")
    for n in (0, 20):
        for draw in draws[20 : 20 + n]:
            step(stores[0], draw), step(stores[1], draw)
        assert len(stores[0]) == len(stores[1]) == 7
        contents = [read_all(store) for store in stores]
        for name, values in contents[0].items():
            np.testing.assert_array_equal(values, contents[1][name], err_msg=name)
    samples = [store.sample(5, np.random.default_rng(1)).reward.tolist() for store in stores]
    assert samples[0] == samples[1]


def test_equal_pairs_cost_an_id_and_a_store_without_them_nothing(tmp_path):
    stores = [CandidateReplay(100, D, K, None, n_pairs=n_pairs) for n_pairs in (0, 5)]
    for replay in stores:
        pairs = np.arange(K * 5, dtype=np.float32).reshape(1, K, 5) if replay.n_pairs else None
        obs = DecisionBatch(np.ones((1, D), np.float32), np.array([[1, 2, 3]]), None, pairs)
        before = replay.nbytes
        for _ in range(100):
            replay.add(obs, obs, np.array([0]), np.array([0.0]), np.array([False]))
        # What each environment showed last is kept beside the tables, and which of its candidates are allowed.
        assert replay.nbytes - before == sum(part.nbytes for part in obs if part is not None) + K
    plain, with_pairs = stores
    assert len(with_pairs._tables()["pairs"]) == 1
    plain.save(tmp_path / "replay.npz")
    with np.load(tmp_path / "replay.npz") as arrays:
        assert not [name for name in arrays.files if "pairs" in name or "applicant" in name]


def read_all(replay):
    """The content of a store, whatever ids it gave."""
    found = replay[np.arange(len(replay))]
    sets, masks = replay.candidate_sets(found.position)
    next_sets, next_masks = replay.candidate_sets(found.position, following=True)
    return {
        "state": replay.state_rows(found.state_id),
        "next_state": replay.state_rows(found.next_state_id),
        "candidates": replay.candidate_rows(sets),
        "next_candidates": replay.candidate_rows(next_sets),
        "masks": masks,
        "next_masks": next_masks,
        "action": found.action,
        "reward": found.reward,
        "terminated": found.terminated,
        "serial": found.serial,
        **replay.components(found.position),
        **({} if found.pairs is None else pairs_in(replay, found)),
    }


def pairs_in(replay, found):
    return {
        "pairs": replay.pair_sets(found.position),
        "next_pairs": replay.pair_sets(found.position, following=True),
        "applicant_id": replay._pairs.applicant_id[found.position],
    }


def test_a_store_of_another_layout_is_refused(tmp_path):
    replay = CandidateReplay(4, D, K, 2)
    obs = decisions([1], [[1, 2, 3]])
    replay.add(obs, obs, np.array([0]), np.array([0.0]), np.array([False]))
    replay.save(tmp_path / "replay.npz")
    for other in (CandidateReplay(4, D + 1, K, 2), CandidateReplay(4, D, K), CandidateReplay(4, D, K, 2, n_pairs=1)):
        with pytest.raises(ValueError, match="Build it with the `buffer_size` and the spaces"):
            other.load(tmp_path / "replay.npz")


def test_components_are_kept_beside_the_reward_and_nan_where_missing():
    replay = CandidateReplay(4, D, K, 2)
    obs = decisions([1], [[1, 2, 3]])
    for info in ({"reward_components": {"a": 1.0}}, {}, {"reward_components": {"a": 2.0, "b": 3.0}}):
        replay.add(obs, obs, np.array([0]), np.array([0.0]), np.array([False]), [info])
    components = replay.components(np.arange(3))
    np.testing.assert_array_equal(components["a"], np.array([1, np.nan, 2], np.float32))
    np.testing.assert_array_equal(components["b"], np.array([np.nan, np.nan, 3], np.float32))


def test_the_newest_are_the_last_stored_in_order_less_those_that_are_not_to_be_learned_from():
    replay = CandidateReplay(4, D, K, 2)
    for number in range(6):
        obs, info = (
            decisions([number], [[1, 2, 3]]),
            {"reward_components": {"a": 1.0, **({} if number == 4 else {"b": 1})}},
        )
        replay.add(obs, obs, np.array([0]), np.array([float(number)]), np.array([False]), [info])
    np.testing.assert_array_equal(replay.newest(3).reward, [3, 4, 5])
    replay.weights = {"a": 1.0, "b": 1.0}  # number 4 lacks a component that counts
    np.testing.assert_array_equal(replay.newest(4).serial, [2, 3, 5])


def test_planning_on_candidates_draws_only_allowed_ones_that_were_not_chosen():
    replay = CandidateReplay(4, D, K, 2)
    obs = decisions([1], [[10, 20, 30]], [[True, True, False]])
    only = decisions([2], [[40, 50, 60]], [[False, True, False]])
    replay.add(obs, obs, np.array([0]), np.array([0.0]), np.array([False]))
    replay.add(only, only, np.array([1]), np.array([0.0]), np.array([False]))
    pairs = CandidatePairs().sample(replay, 50, np.random.default_rng(0))
    imagined = replay.candidate_rows(pairs.candidate_id)[:, 0]
    assert set(imagined[pairs.position == 0]) == {20.0}
    assert set(imagined[pairs.position == 1]) == {50.0}  # nothing else was allowed
    assert set(VisitedPairs().sample(replay, 50, np.random.default_rng(0)).action) == {0, 1}


def test_planning_on_candidates_is_refused_while_terminated_transitions_are_held():
    replay = CandidateReplay(1, D, K, 2)
    obs = decisions([1], [[1, 2, 3]])
    replay.add(obs, obs, np.array([0]), np.array([0.0]), np.array([True]))
    with pytest.raises(ValueError, match='Use `planning_source="visited"`'):
        CandidatePairs().sample(replay, 1, np.random.default_rng(0))
    replay.add(obs, obs, np.array([0]), np.array([0.0]), np.array([False]))
    CandidatePairs().sample(replay, 1, np.random.default_rng(0))


def test_crossed_pairs_are_the_coming_decision_and_states_with_others_candidates():
    replay = CandidateReplay(4, D, K, 2)
    first = decisions([1], [[10, 20, 30]], [[True, True, False]])
    second = decisions([2], [[40, 50, 60]], [[False, True, True]])
    coming = decisions([3], [[70, 80, 90]], [[True, False, True]])
    replay.add(first, second, np.array([0]), np.array([0.0]), np.array([False]))
    replay.add(second, coming, np.array([1]), np.array([0.0]), np.array([False]))

    def drawn(share):
        pairs = CrossedPairs(share).sample(replay, 200, np.random.default_rng(0))
        np.testing.assert_array_equal(pairs.state_id, pairs.next_state_id)
        states, actions = replay.state_rows(pairs.state_id)[:, 0], replay.candidate_rows(pairs.candidate_id)[:, 0]
        return set(zip(states.tolist(), actions.tolist(), strict=True))

    crossed = {(s, a) for s in (1.0, 2.0) for a in (10.0, 20.0, 50.0, 60.0)}
    assert drawn(0.0) == crossed
    assert drawn(1.0) == {(3.0, 70.0), (3.0, 90.0)}
    assert drawn(0.5) == crossed | {(3.0, 70.0), (3.0, 90.0)}
    with pytest.raises(ValueError, match="`coming` must be from 0 to 1"):
        CrossedPairs(1.5)


def test_a_misspelt_planning_source_is_suggested():
    with pytest.raises(ValueError, match="did you mean 'candidates'"):
        make_planning_source("candidate")


@pytest.mark.parametrize("name", ["buffer", "buffer.pkl", "buffer.npz"])
def test_a_replay_is_saved_under_the_name_that_was_given(tmp_path, name):
    model = DynaQ("CandidatePolicy", make_toy(), learning_starts=1_000, policy_kwargs={"net_arch": [4]}, seed=0)
    model.learn(20)
    model.save_replay_buffer(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = DynaQ("CandidatePolicy", make_toy(), policy_kwargs={"net_arch": [4]}, seed=1)
    again.load_replay_buffer(tmp_path / name)
    assert len(again.replay_buffer) == 20


def test_a_restored_table_hands_out_the_places_that_the_saved_one_would():
    table, restored = InternedRows(1, np.float32), InternedRows(1, np.float32)
    ids = table.intern(np.arange(6, dtype=np.float32)[:, None])
    for place in (4, 1, 3):
        table.release(ids[[place]])
    assert table.free_places().tolist() == [3, 1, 4]
    restored.restore(table.rows[: table.n_used], table.counts[: table.n_used], table.free_places())
    new = np.arange(10, 14, dtype=np.float32)[:, None]
    assert restored.intern(new).tolist() == table.intern(new).tolist() == [3, 1, 4, 6]
