//! Records, locks and process identity, with the state root on tmpfs, as `/run` is.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use urunc_state::{
    AbsolutePath, ContainerId, Deadline, Json, Locked, Origin, Pid, Process, Record, Resource, Store,
};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn measure(criterion: &mut Criterion) {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent).expect("a directory for records");
    let store = Store::open(directory.path()).expect("a state root");
    let mut group = criterion.benchmark_group("state");
    let id = ContainerId::new("bench").expect("a valid id");
    let mut held = create(&store, &id);
    group.bench_function("record write", |bench| {
        bench.iter(|| {
            held.update(|record| record.urunc.monitor = "qemu".to_owned()).expect("a written record")
        });
    });
    drop(held);
    group.bench_function("record read", |bench| bench.iter(|| store.read(&id).expect("a record")));
    group.bench_function("lock and read", |bench| {
        bench.iter(|| store.lock(&id, Deadline::after(SECOND)).expect("a lock"));
    });
    let other = ContainerId::new("other").expect("a valid id");
    group.bench_function("container created and removed", |bench| {
        bench.iter(|| store.remove(create(&store, &other)).expect("a removed container"));
    });
    let pid = Pid::new(std::process::id().into()).expect("our own pid");
    let process = Process::with_pid(pid).expect("a process").expect("ourselves");
    group.bench_function("process identity taken", |bench| bench.iter(|| Process::with_pid(black_box(pid))));
    group.bench_function("process identity opened again", |bench| {
        bench.iter(|| Process::open(black_box(process.identity())));
    });
    group.finish();
}

/// A container with a record of the usual size.
fn create(store: &Store, id: &ContainerId) -> Locked {
    let bundle = AbsolutePath::new("/run/bundles/bench").expect("an absolute path");
    let mut record = Record::new(id.clone(), bundle.clone());
    let data = serde_json::json!({"paths": ["/sys/fs/cgroup/urunc/bench"], "text": "x".repeat(2500)});
    let data = Json::of(&data).expect("a JSON value");
    record.urunc.resources.push(Resource { kind: "cgroup".to_owned(), schema: 1, data });
    store.create(&Origin::new(id.clone(), bundle), record).expect("a container")
}
