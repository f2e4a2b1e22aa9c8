//! The executor that enters a namespace, and a TAP device attached and released.

use std::io::Write;
use std::path::Path;

use criterion::Criterion;
use urunc_netns::{Handover, Mode, NetNs, Owner, attach, discover, plan, release};

use crate::namespace::Namespace;

pub(crate) fn measure(criterion: &mut Criterion) {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: netns needs root");
        return;
    }
    let namespace = Namespace::make().expect("a network namespace");
    let path = namespace.path();
    let open = NetNs::open(&path).expect("the namespace");
    let mut group = criterion.benchmark_group("netns");
    group.bench_function("round trip into the namespace", |bench| {
        bench.iter(|| open.run(|_| ()).expect("a round trip"));
    });
    group.bench_function("discover", |bench| {
        bench.iter(|| open.run(discover).expect("a round trip").expect("a look"));
    });
    let found = open.run(discover).expect("a round trip").expect("a look").expect("an interface");
    let owner = Owner::new("bench", Path::new("/run/bench"));
    let plan = plan(&found, &owner, Mode::Dynamic, Handover::Descriptor).expect("a plan");
    group.bench_function("TAP attached and released", |bench| {
        bench.iter(|| {
            drop(open.run(|here| attach(here, &plan.attachment)).expect("a round trip").expect("a TAP"));
            release(Some(Path::new(&path)), &plan.attachment).expect("a clean namespace")
        });
    });
    group.finish();
}
