//! Whole hubs on sled, every step durable: how long a round of each scenario takes.
//!
//! `steadfast bench` measures the same scenarios over longer runs and prints what the machine's disk and the bare
//! kernel do beside them; this is for comparing two versions of the code.

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use futures_util::future::{join_all, try_join_all};
use steadfast::{
    ActivityContext, ActivityName, Client, EntityCall, EntityContext, EntityId, Error, Hub,
    OrchestrationContext, OrchestrationName, TaskHub, activity, entity, orchestration,
};
use tokio::runtime::Runtime;

const ECHO: ActivityName<u64, u64> = ActivityName::new("echo");
const SEQUENCE: OrchestrationName<u64, u64> = OrchestrationName::new("sequence");
const FANOUT: OrchestrationName<u64, u64> = OrchestrationName::new("fanout");
const TIMER: OrchestrationName<(), ()> = OrchestrationName::new("timer");
const PARENT: OrchestrationName<u64, u64> = OrchestrationName::new("parent");

async fn start(folder: &std::path::Path) -> Hub {
    TaskHub::builder(folder)
        .partitions(2)
        .register(activity("echo", |_: ActivityContext, number: u64| async move { Ok::<_, Error>(number) }))
        .register(orchestration("sequence", |ctx: OrchestrationContext, steps: u64| async move {
            for step in 0..steps {
                ctx.call(ECHO, step).await?;
            }
            Ok::<_, Error>(steps)
        }))
        .register(orchestration("fanout", |ctx: OrchestrationContext, width: u64| async move {
            let echoes = try_join_all((0..width).map(|number| ctx.call(ECHO, number))).await?;
            Ok::<_, Error>(echoes.len() as u64)
        }))
        .register(orchestration("timer", |ctx: OrchestrationContext, ()| async move {
            ctx.timer(Duration::from_millis(1)).await;
            Ok::<_, Error>(())
        }))
        .register(orchestration("parent", |ctx: OrchestrationContext, steps: u64| async move {
            Ok::<_, Error>(ctx.call_orchestration(SEQUENCE, steps).await?)
        }))
        .register(entity::<i64>("counter").operation(
            "add",
            |sum: &mut i64, _: &EntityContext, amount: i64| {
                *sum += amount;
                Ok::<_, Error>(*sum)
            },
        ))
        .start()
        .await
        .expect("a new hub starts")
}

/// Runs `instances` sequences of `steps` at once.
async fn sequences(client: &Client, instances: u64, steps: u64) {
    let runs = (0..instances).map(|_| async {
        let run = client.start(SEQUENCE, steps).await.expect("the hub runs");
        run.result().await.expect("it completes")
    });
    join_all(runs).await;
}

fn throughput(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime starts");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = runtime.block_on(start(folder.path()));
    let client = hub.client();
    let mut group = criterion.benchmark_group("throughput");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(1000));
    group.bench_function("hello_1000_at_once", |bencher| {
        bencher.iter(|| runtime.block_on(sequences(&client, 1000, 3)));
    });
    group.throughput(Throughput::Elements(1));
    group
        .bench_function("hello_alone", |bencher| bencher.iter(|| runtime.block_on(sequences(&client, 1, 3))));
    group.bench_function("ping_alone", |bencher| bencher.iter(|| runtime.block_on(sequences(&client, 1, 1))));
    group.throughput(Throughput::Elements(200));
    group.bench_function("chain_of_200", |bencher| {
        bencher.iter(|| runtime.block_on(sequences(&client, 1, 200)))
    });
    group.throughput(Throughput::Elements(2000));
    group.bench_function("fanout_of_2000", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let run = client.start(FANOUT, 2000).await.expect("the hub runs");
                run.result().await.expect("it completes")
            })
        });
    });
    group.throughput(Throughput::Elements(500));
    group.bench_function("timers_500_at_once", |bencher| {
        bencher.iter(|| {
            runtime.block_on(join_all((0..500).map(|_| async {
                client.start(TIMER, ()).await.expect("the hub runs").result().await.expect("it completes")
            })))
        });
    });
    group.bench_function("children_500_at_once", |bencher| {
        bencher.iter(|| {
            runtime.block_on(join_all((0..500).map(|_| async {
                client.start(PARENT, 1).await.expect("the hub runs").result().await.expect("it completes")
            })))
        });
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("signals_1000_to_100_entities", |bencher| {
        bencher.iter(|| {
            runtime.block_on(join_all((0..1000).map(|number| {
                let counter = EntityId::new("counter", (number % 100).to_string()).expect("a usable key");
                let call = EntityCall::<i64>::new(&counter, "add", 1);
                async { client.signal_entity(call).await.expect("the hub runs") }
            })))
        });
    });
    group.finish();
    runtime.block_on(hub.stop()).expect("the hub stops");
}

criterion_group!(benches, throughput);
criterion_main!(benches);
