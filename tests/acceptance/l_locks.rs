//! Group L, critical sections: who gets locks, what is refused within them, and how they are freed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::prelude::*;
use steadfast::store::{MemoryStore, Store};
use steadfast::{
    CleanedEntities, Client, EntityCleaning, EntityMetadata, FailureDetails, HubBuilder, InstanceId,
    InstanceState, failure::kinds,
};
use steadfast_store::{InstanceChange, InstanceWrite, Materialisation};

use crate::support::{end_of, hub, soon, stop, until, with_and_without_sessions, with_id};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[entity(name = "Bank.Account")]
impl Account {
    fn deposit(&mut self, amount: i64) -> i64 {
        self.balance += amount;
        self.balance
    }

    fn balance(&self) -> i64 {
        self.balance
    }
}

#[orchestration]
async fn transfer(ctx: OrchestrationContext, from: String, to: String, amount: i64) -> Result<(i64, i64)> {
    let (from, to) = (Account::at(from), Account::at(to));
    let _section = ctx.lock_entities([&to, &from, &from]).await?;
    let before = ctx.call_entity(from.balance()).await?;
    ctx.timer(Duration::from_millis(1)).await;
    let from = ctx.call_entity(from.deposit(-amount)).await?;
    if from != before - amount {
        return Err(Error::msg("somebody came between"));
    }
    Ok((from, ctx.call_entity(to.deposit(amount)).await?))
}

/// Locks accounts, says so, and ends as it is told.
#[orchestration]
async fn hold(ctx: OrchestrationContext, keys: Vec<String>) -> Result<()> {
    let section = ctx.lock_entities(keys.iter().map(Account::at)).await?;
    ctx.set_custom_status("holding")?;
    match ctx.wait_for_event::<String>("end").await?.as_str() {
        "release" => section.release(),
        "fail" => return Err(Error::msg("failed in the critical section")),
        "again" => ctx.continue_as_new(&Vec::<String>::new())?,
        // Whoever forgets a section keeps it until the end.
        _ => std::mem::forget(section),
    }
    Ok(())
}

#[orchestration]
async fn deposit(ctx: OrchestrationContext, key: String, amount: i64) -> Result<i64> {
    Ok(ctx.call_entity(Account::at(key).deposit(amount)).await?)
}

async fn known(client: &Client, key: &str) -> Option<EntityMetadata> {
    client.entity(Account::at(key)).await.unwrap()
}

async fn until_unlocked(client: &Client, key: &str) {
    let look = async {
        while known(client, key).await.is_some_and(|known| known.locked_by.is_some()) {
            tokio::task::yield_now().await;
        }
    };
    soon("the unlock", look).await;
}

async fn holder(client: &Client, id: &str, keys: &[&str]) {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    client.start_with(hold, keys, with_id(id)).await.unwrap();
    until(client, id, |state| state.custom_status.is_some()).await;
}

with_and_without_sessions! {
    async fn nobody_comes_between_within_a_critical_section(sessions: bool) {
        let hub = hub(sessions).register(Account::entity()).register(transfer).register(deposit).start().await.unwrap();
        let client = hub.client();
        let mut runs = Vec::new();
        for n in 0..30 {
            let (from, to) = [("a", "b"), ("b", "c"), ("c", "a")][n % 3];
            runs.push(client.start(transfer, (from.into(), to.into(), 1 + n as i64)).await.unwrap());
            client.signal_entity(Account::at("a").deposit(1)).await.unwrap();
        }
        for run in runs {
            soon("the transfer", run.result()).await.unwrap();
        }
        let mut total = 0;
        for key in ["a", "b", "c"] {
            // A call waits behind all signals that were accepted before it; what is stored may still lack the last one.
            let balance = client.start(deposit, (key.into(), 0)).await.unwrap();
            total += soon("the balance", balance.result()).await.unwrap();
        }
        assert_eq!(total, 30);
        stop(hub).await;
    }

    async fn a_locked_entity_lets_others_wait_and_says_who_holds_it(sessions: bool) {
        let hub = hub(sessions).register(Account::entity()).register(hold).register(deposit).start().await.unwrap();
        let client = hub.client();
        holder(&client, "holder", &["a", "b"]).await;
        client.signal_entity(Account::at("a").deposit(1)).await.unwrap();
        let waiting = client.start(deposit, ("a".into(), 10)).await.unwrap();
        let look = async {
            while known(&client, "a").await.is_none_or(|known| known.backlog_size < 2) {
                tokio::task::yield_now().await;
            }
        };
        soon("the backlog", look).await;
        let locked = known(&client, "a").await.unwrap();
        assert_eq!(locked.locked_by.unwrap().as_str(), "holder");
        assert!(!locked.exists);
        client.raise_event("holder", "end", "release").await.unwrap();
        assert_eq!(soon("the deposit", waiting.result()).await.unwrap(), 11);
        stop(hub).await;
    }

    async fn locks_are_free_once_their_owner_has_ended_in_any_way(sessions: bool) {
        let hub = hub(sessions).register(Account::entity()).register(hold).register(deposit).start().await.unwrap();
        let client = hub.client();
        for (nth, way) in ["release", "fail", "again", "forget", "terminate"].into_iter().enumerate() {
            let id = format!("holder-{way}");
            holder(&client, &id, &["a", "b", "c"]).await;
            let waiting = client.start(deposit, ("c".into(), 1)).await.unwrap();
            if way == "terminate" {
                client.terminate(&id, "by the test", false).await.unwrap();
            } else {
                client.raise_event(&id, "end", way).await.unwrap();
            }
            assert_eq!(soon(way, waiting.result()).await.unwrap(), nth as i64 + 1);
            for key in ["a", "b"] {
                until_unlocked(&client, key).await;
            }
            end_of(&client, &id).await;
        }
        stop(hub).await;
    }

    async fn an_owner_that_ends_while_its_request_waits_takes_it_back(sessions: bool) {
        let hub = hub(sessions).register(Account::entity()).register(hold).register(deposit).start().await.unwrap();
        let client = hub.client();
        holder(&client, "holder", &["b"]).await;
        // It gets a, and waits for b.
        client.start_with(hold, vec!["a".into(), "b".into(), "c".into()], with_id("waiter")).await.unwrap();
        let look = async {
            while known(&client, "a").await.is_none_or(|known| known.locked_by.is_none()) {
                tokio::task::yield_now().await;
            }
        };
        soon("the first lock", look).await;
        client.terminate("waiter", "by the test", false).await.unwrap();
        until_unlocked(&client, "a").await;
        client.raise_event("holder", "end", "release").await.unwrap();
        for key in ["a", "b", "c"] {
            let run = client.start(deposit, (key.into(), 5)).await.unwrap();
            assert_eq!(soon("the deposit", run.result()).await.unwrap(), 5);
        }
        stop(hub).await;
    }
}

#[orchestration]
async fn misuse(ctx: OrchestrationContext) -> Result<Vec<String>> {
    let (a, b) = (Account::at("a"), Account::at("b"));
    let mut refusals = Vec::new();
    let mut note = |problem: Result<(), FailureDetails>| refusals.push(problem.unwrap_err());
    note(ctx.lock_entities::<EntityId>([]).await.map(drop).map_err(|error| error.details));
    let waiting = ctx.lock_entities([&a]);
    note(ctx.call_entity(a.balance()).await.map(drop).map_err(|error| error.details));
    let _section = waiting.await?;
    note(ctx.lock_entities([&b]).await.map(drop).map_err(|error| error.details));
    note(ctx.signal_entity(a.deposit(1)).map_err(Error::into_details));
    note(ctx.call_entity(b.balance()).await.map(drop).map_err(|error| error.details));
    let first = ctx.call_entity(a.balance());
    note(ctx.call_entity(a.balance()).await.map(drop).map_err(|error| error.details));
    first.await?;
    note(ctx.call_orchestration(deposit, ("b".into(), 1)).await.map(drop).map_err(|error| error.details));
    assert!(
        refusals.iter().all(|refusal| refusal.error_type == kinds::CRITICAL_SECTION_MISUSED),
        "{refusals:?}"
    );
    // All of that left the section as it was; and others may be signaled.
    ctx.signal_entity(b.deposit(1))?;
    ctx.call_entity(a.deposit(1)).await?;
    Ok(refusals.into_iter().map(|refusal| refusal.message).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn misuse_of_a_critical_section_is_a_typed_error_for_each_rule() {
    let hub = hub(true).register(Account::entity()).register(misuse).register(deposit).start().await.unwrap();
    let client = hub.client();
    let run = client.start(misuse, ()).await.unwrap();
    let refusals = soon("the end", run.result()).await.unwrap();
    let rules = [
        "name at least one",
        "await them first",
        "within another one",
        "call it instead",
        "is not locked by it",
        "another call of it is under way",
        "calls a sub-orchestration",
    ];
    assert_eq!(refusals.len(), rules.len());
    for (refusal, rule) in refusals.iter().zip(rules) {
        assert!(refusal.contains(rule), "{rule}: {refusal}");
    }
    until_unlocked(&client, "a").await;
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_finds_nothing_to_do_where_everything_vanishes_and_is_freed_by_itself() {
    let hub = hub(true).register(Account::entity()).register(hold).start().await.unwrap();
    let client = hub.client();
    client.signal_entity(EntityCall::<()>::new(Account::at("gone"), "delete", ())).await.unwrap();
    holder(&client, "holder", &["a"]).await;
    let cleaned = client.clean_entity_storage(&EntityCleaning::default()).await.unwrap();
    assert_eq!(cleaned, CleanedEntities::default());
    client.raise_event("holder", "end", "release").await.unwrap();
    until_unlocked(&client, "a").await;
    stop(hub).await;
}

/// Changes what is stored of instances while no hub is open, as an accident would.
fn damage(store: &MemoryStore, changes: Vec<(&str, InstanceChange)>) {
    let partition = steadfast_core::PartitionId(0);
    let upto = store.load_partition(partition).unwrap().upto;
    let mut instances: Vec<_> = changes
        .into_iter()
        .map(|(id, change)| InstanceWrite { instance: InstanceId::from_trusted(id), reflects: upto, change })
        .collect();
    instances.sort_by(|left, right| left.instance.cmp(&right.instance));
    store.materialise(partition, &Materialisation { upto, instances, rows: Vec::new() }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_frees_locks_whose_owners_are_gone_and_removes_what_is_left_of_empty_entities() {
    let store = MemoryStore::new(1);
    let start = || {
        let store = store.clone();
        let builder = HubBuilder::new(move |_| Ok(std::sync::Arc::new(store)));
        builder.register(Account::entity()).register(hold).register(deposit).start()
    };
    let hub = start().await.unwrap();
    for (id, key) in [("lost", "a"), ("replaced", "b"), ("alive", "c")] {
        holder(&hub.client(), id, &[key]).await;
    }
    hub.client().signal_entity(Account::at("empty").deposit(1)).await.unwrap();
    stop(hub).await;
    let empty = "@bank.account@empty";
    let nothing =
        InstanceState::entity(InstanceId::from_trusted(empty), Default::default(), Timestamp::default());
    let mut bytes = Vec::new();
    nothing.encode(&mut bytes);
    let put = InstanceChange::Put {
        payloads: Vec::new(),
        state: bytes.into(),
        history: steadfast_store::HistoryChange::Replace(Vec::new().into()),
        history_events: 0,
        fresh: false,
        ended: false,
        facts: (&nothing).into(),
    };
    damage(
        &store,
        vec![("lost", InstanceChange::Delete), ("replaced", InstanceChange::Delete), (empty, put)],
    );

    let hub = start().await.unwrap();
    let client = hub.client();
    // Under the id of one of them there is somebody else now.
    holder(&client, "replaced", &["d"]).await;
    let waits = client.start(deposit, ("a".into(), 5)).await.unwrap();
    let only = |remove_empty, release_orphaned_locks| EntityCleaning {
        remove_empty,
        release_orphaned_locks,
        continuation: None,
    };
    let nothing = client.clean_entity_storage(&only(false, false)).await.unwrap();
    assert_eq!(nothing, CleanedEntities::default());
    assert_eq!(known(&client, "a").await.unwrap().locked_by.unwrap().as_str(), "lost");
    let freed = client.clean_entity_storage(&only(false, true)).await.unwrap();
    assert_eq!(freed, CleanedEntities { orphaned_locks_released: 2, ..CleanedEntities::default() });
    assert_eq!(soon("the deposit", waits.result()).await.unwrap(), 5);
    for (key, owner) in [("b", None), ("c", Some("alive")), ("d", Some("replaced"))] {
        if owner.is_none() {
            until_unlocked(&client, key).await;
        }
        let locked_by = known(&client, key).await.and_then(|known| known.locked_by);
        assert_eq!(locked_by.as_ref().map(InstanceId::as_str), owner, "{key}");
    }
    let removed = client.clean_entity_storage(&only(true, false)).await.unwrap();
    assert_eq!(removed, CleanedEntities { empty_removed: 1, ..CleanedEntities::default() });
    let again = client.clean_entity_storage(&EntityCleaning::default()).await.unwrap();
    assert_eq!(again, CleanedEntities::default());
    stop(hub).await;
}
