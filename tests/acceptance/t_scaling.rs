//! How many nodes a hub needs: the decision table, case by case.

use std::time::Duration;

use steadfast::scaling::{
    BacklogSample, LULL_PERCENT, SAMPLES, ScaleAction, ScaleDecision, ScaleMonitor, ScaleOptions,
};

/// A queue's waits in milliseconds, the latest last.
type Waits = [u64; SAMPLES];

const IDLE: Waits = [0; SAMPLES];
const HIGH: Waits = [500, 600, 700, 800, 1000];
const MODERATE: Waits = [500, 600, 700, 800, 900];
const LOW: Waits = [1, 1, 1, 1, 1];

/// No lull ends with fewer nodes by chance.
const NO_CHANCE: u8 = LULL_PERCENT;

fn sample(activities: &Waits, partitions: &[Waits], at: usize) -> BacklogSample {
    BacklogSample {
        activities: Duration::from_millis(activities[at]),
        partitions: partitions.iter().map(|waits| Duration::from_millis(waits[at])).collect(),
    }
}

/// Decides after all samples. Samples that are older than these must not matter, whatever they are.
fn decide_with(nodes: usize, chance: u8, activities: Waits, partitions: &[Waits]) -> ScaleDecision {
    let mut fresh = ScaleMonitor::new(ScaleOptions::default());
    let mut used = ScaleMonitor::new(ScaleOptions::default());
    for old in 0..SAMPLES {
        let waits = Duration::from_secs(old as u64 * 1000);
        used.add(BacklogSample { activities: waits, partitions: vec![waits; partitions.len()] });
    }
    for at in 0..SAMPLES {
        let before = fresh.decide(nodes.max(1), chance);
        assert_eq!(before.action, ScaleAction::Keep, "{at} samples are too few");
        fresh.add(sample(&activities, partitions, at));
        used.add(sample(&activities, partitions, at));
    }
    let decision = fresh.decide(nodes, chance);
    assert_eq!(used.decide(nodes, chance), decision);
    decision
}

fn decide(nodes: usize, activities: Waits, partitions: &[Waits]) -> ScaleAction {
    let decision = decide_with(nodes, NO_CHANCE, activities, partitions);
    assert!(decision.keep_alive, "there is work: {decision:?}");
    decision.action
}

#[test]
fn the_first_node_is_added_as_soon_as_there_is_work() {
    let mut monitor = ScaleMonitor::new(ScaleOptions::default());
    monitor.add(sample(&IDLE, &[IDLE; 4], 0));
    let nothing = monitor.decide(0, NO_CHANCE);
    assert_eq!((nothing.action, nothing.keep_alive), (ScaleAction::Keep, false));
    monitor.add(sample(&IDLE, &[IDLE, LOW], 0));
    let work = monitor.decide(0, NO_CHANCE);
    assert_eq!((work.action, work.keep_alive), (ScaleAction::Add, true));
    monitor = ScaleMonitor::new(ScaleOptions::default());
    monitor.add(sample(&LOW, &[IDLE; 4], 0));
    assert_eq!(monitor.decide(0, NO_CHANCE).action, ScaleAction::Add);
}

#[test]
fn too_few_samples_change_nothing_and_keep_a_hub_with_work_alive() {
    for activities in [IDLE, HIGH] {
        let mut monitor = ScaleMonitor::new(ScaleOptions::default());
        for at in 0..SAMPLES - 1 {
            monitor.add(sample(&activities, &[IDLE], at));
            let decision = monitor.decide(1, NO_CHANCE);
            assert_eq!(decision.action, ScaleAction::Keep);
            assert_eq!(decision.keep_alive, activities == HIGH);
        }
    }
}

#[test]
fn an_idle_hub_gives_up_its_nodes_and_need_not_be_kept_alive() {
    for nodes in [1, 2, 4] {
        for partitions in [1, 2, 4] {
            let decision = decide_with(nodes, NO_CHANCE, IDLE, &vec![IDLE; partitions]);
            assert_eq!((decision.action, decision.keep_alive), (ScaleAction::Remove, false));
        }
    }
    assert_eq!(
        decide_with(0, NO_CHANCE, IDLE, &[IDLE]).action,
        ScaleAction::Keep,
        "there is none to give up"
    );
}

#[test]
fn activities_that_wait_for_long_add_a_node_whatever_the_number_of_nodes() {
    for nodes in [1, 2, 4, 100] {
        assert_eq!(decide(nodes, HIGH, &[IDLE; 4]), ScaleAction::Add);
        assert_eq!(decide(nodes, HIGH, &[LOW; 4]), ScaleAction::Add);
    }
}

#[test]
fn activities_that_wait_moderately_change_nothing() {
    for nodes in [1, 2, 4] {
        assert_eq!(decide(nodes, MODERATE, &[IDLE; 4]), ScaleAction::Keep);
    }
}

#[test]
fn activities_that_are_not_idle_keep_more_nodes_than_there_are_partitions() {
    for waits in [LOW, [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]] {
        assert_eq!(decide(8, waits, &[IDLE; 4]), ScaleAction::Keep);
    }
}

#[test]
fn activities_that_drained_quickly_change_nothing() {
    assert_eq!(decide(1, [30_000, 30_000, 30_000, 30_000, 3], &[IDLE; 4]), ScaleAction::Keep);
}

#[test]
fn a_long_wait_after_an_idle_time_counts_only_when_it_is_longer_than_the_polling_interval() {
    for (waits, action) in [
        ([0, 0, 0, 0, 9999], ScaleAction::Keep),
        ([0, 0, 0, 0, 29_999], ScaleAction::Keep),
        ([0, 0, 0, 0, 30_000], ScaleAction::Add),
        ([0, 0, 0, 10, 9999], ScaleAction::Add),
        ([9999, 9999, 9999, 0, 9999], ScaleAction::Keep),
    ] {
        assert_eq!(decide(1, waits, &[IDLE; 4]), action, "activities {waits:?}");
        // A partition needs more waits than there are nodes, so two of them.
        assert_eq!(decide(1, IDLE, &[waits, waits, IDLE, IDLE]), action, "partitions {waits:?}");
    }
}

#[test]
fn a_short_polling_interval_makes_shorter_waits_long() {
    let options = ScaleOptions { max_polling: Duration::from_millis(300), ..ScaleOptions::default() };
    let mut monitor = ScaleMonitor::new(options);
    for wait in [0, 100, 200, 250, 300] {
        monitor.add(BacklogSample { activities: Duration::from_millis(wait), partitions: vec![] });
    }
    assert_eq!(monitor.decide(1, NO_CHANCE).action, ScaleAction::Add);
}

#[test]
fn a_node_is_added_while_more_partitions_wait_for_long_than_there_are_nodes() {
    for high in 1..=4 {
        let mut partitions = [LOW; 4];
        partitions[..high].fill(HIGH);
        for nodes in 1..=5 {
            // Beyond the partitions a node would have nothing to do.
            let action = match nodes {
                5 => ScaleAction::Remove,
                nodes if nodes < high => ScaleAction::Add,
                _ => ScaleAction::Keep,
            };
            assert_eq!(decide(nodes, IDLE, &partitions), action, "{nodes} nodes, {high} partitions");
        }
    }
}

#[test]
fn partitions_that_wait_moderately_change_nothing() {
    for nodes in 1..=4 {
        assert_eq!(decide(nodes, IDLE, &[MODERATE; 4]), ScaleAction::Keep);
    }
}

#[test]
fn a_node_is_removed_when_fewer_partitions_have_work_and_no_activity_waits() {
    for busy in 1..=4 {
        let mut partitions = [IDLE; 4];
        partitions[..busy].fill(LOW);
        for nodes in 1..=4 {
            let action = if nodes > busy { ScaleAction::Remove } else { ScaleAction::Keep };
            assert_eq!(decide(nodes, IDLE, &partitions), action, "{nodes} nodes, {busy} partitions");
            assert_eq!(decide(nodes, MODERATE, &partitions), ScaleAction::Keep, "activities wait");
        }
    }
}

#[test]
fn a_partition_that_was_not_idle_all_the_time_keeps_its_node() {
    for waits in [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]] {
        assert_eq!(decide(1, IDLE, &[waits, IDLE]), ScaleAction::Keep);
        assert_eq!(decide(2, IDLE, &[waits, IDLE]), ScaleAction::Remove);
    }
}

#[test]
fn in_a_lull_one_of_several_nodes_is_removed_by_chance() {
    let low = [200; SAMPLES];
    for (nodes, chance, activities, partition, action) in [
        (2, 0, low, low, ScaleAction::Remove),
        (2, LULL_PERCENT - 1, low, low, ScaleAction::Remove),
        (2, LULL_PERCENT, low, low, ScaleAction::Keep),
        (1, 0, low, low, ScaleAction::Keep),
        (2, 0, [201; SAMPLES], low, ScaleAction::Keep),
        (2, 0, low, [201; SAMPLES], ScaleAction::Keep),
        (2, 0, [900, 900, 900, 900, 200], low, ScaleAction::Remove),
    ] {
        let decision = decide_with(nodes, chance, activities, &[partition; 4]);
        assert_eq!((decision.action, decision.keep_alive), (action, true), "{decision:?}");
    }
}

#[test]
fn partitions_that_appear_later_count_as_idle_before() {
    let mut monitor = ScaleMonitor::new(ScaleOptions::default());
    for at in 0..SAMPLES {
        let partitions = if at < 3 { vec![LOW] } else { vec![LOW, HIGH] };
        monitor.add(sample(&IDLE, &partitions, at));
    }
    // 800 ms, then 1000 ms: long, because the one before was not idle.
    assert_eq!(monitor.decide(1, NO_CHANCE).action, ScaleAction::Keep, "one node for one high partition");
    let partitions = [LOW; 0];
    let mut empty = ScaleMonitor::new(ScaleOptions::default());
    (0..SAMPLES).for_each(|at| empty.add(sample(&IDLE, &partitions, at)));
    assert_eq!(empty.decide(1, NO_CHANCE).action, ScaleAction::Remove);
}
