//! One `delete --force` suffices whatever of the container, or of what it was made from, is gone.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::ground::{Ground, Kind};
use crate::scene::passed;
use crate::trace::Tracer;

/// The lives that are cut short: of a created container, and of a running one.
const LIVES: [&[&str]; 2] = [&["create"], &["create", "start"]];

/// Lets `spoil` break something in both lives; after `repair` of what is not ours to restore, nothing may differ.
fn forced(kind: Kind, spoil: impl Fn(&Ground), repair: impl Fn(&Ground)) -> Result<(), Failed> {
    for life in LIVES {
        let ground = Ground::new(kind);
        let mut tracer = Tracer::new(None);
        for step in life {
            let ended = tracer.run(ground.command(step));
            if !ended.succeeded() {
                return Err(format!("{step}: {ended:?}").into());
            }
        }
        spoil(&ground);
        let deleted = tracer.run(ground.command("delete --force"));
        repair(&ground);
        let mut wrong = ground.clean_up(&mut tracer);
        if !deleted.succeeded() {
            wrong.push(format!("{deleted:?}"));
        }
        if !wrong.is_empty() {
            return Err(format!("after {life:?}: {wrong:#?}").into());
        }
    }
    passed()
}

fn rename(ground: &Ground, from: &str, to: &str) {
    fs::rename(ground.scene.path(from), ground.scene.path(to)).unwrap();
}

pub(crate) fn bundle_gone() -> Result<(), Failed> {
    forced(Kind::Alone, |it| rename(it, "bundle", "elsewhere"), |it| rename(it, "elsewhere", "bundle"))
}

pub(crate) fn monitor_gone() -> Result<(), Failed> {
    forced(
        Kind::Alone,
        |it| rename(it, "monitor.sh", "elsewhere"),
        |it| rename(it, "elsewhere", "monitor.sh"),
    )
}

pub(crate) fn namespace_gone() -> Result<(), Failed> {
    forced(Kind::InPod, |it| it.pod().unwrap().remove(), |it| it.pod().unwrap().make())
}

fn edit_record(ground: &Ground, change: impl FnOnce(&mut Value)) {
    let path = ground.scene.root().join("c/state.json");
    let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut record);
    fs::write(path, record.to_string()).unwrap();
}

/// After a reboot the number of the process is somebody else's, who must not be touched, not even if the rest agrees.
pub(crate) fn other_boot() -> Result<(), Failed> {
    let ground = Ground::new(Kind::Alone);
    let mut tracer = Tracer::new(None);
    assert!(tracer.run(ground.command("create")).succeeded());
    // The child of another thread, so that the tracer does not wait for it.
    let mut bystander =
        std::thread::spawn(|| Command::new("sleep").arg("1000").spawn().unwrap()).join().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", bystander.id())).unwrap();
    let start_time: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    edit_record(&ground, |record| {
        let process = &mut record["urunc"]["process"];
        for key in ["pid", "startTime", "bootId"] {
            assert!(!process[key].is_null(), "{key} of {process}");
        }
        process["pid"] = bystander.id().into();
        process["startTime"] = start_time.into();
        process["bootId"] = "00000000-0000-4000-8000-000000000000".into();
    });
    assert_eq!(ground.scene.status("c"), "stopped");
    let deleted = tracer.run(ground.command("delete --force"));
    let wrong = ground.clean_up(&mut tracer);
    let survived = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(deleted.succeeded(), "{deleted:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(survived, "a process of this boot was killed");
    passed()
}

/// The host has unmounted a volume for the guest, and the record said that it is to be mounted again.
pub(crate) fn unreadable_record_with_disks() -> Result<(), Failed> {
    forced(Kind::WithDisks, |it| fs::write(it.scene.root().join("c/state.json"), "{ torn").unwrap(), |_| {})
}

/// F1: an unreadable record orphaned the VM for good.
pub(crate) fn unreadable_record() -> Result<(), Failed> {
    let record = |ground: &Ground| ground.scene.root().join("c/state.json");
    forced(Kind::Alone, |it| edit_record(it, |record| record["created"] = "yesterday".into()), |_| {})?;
    // From here on, only the control group tells the process.
    forced(Kind::Alone, |it| fs::write(record(it), "{ torn").unwrap(), |_| {})?;
    forced(Kind::Alone, |it| fs::write(record(it), "").unwrap(), |_| {})?;
    forced(Kind::Alone, |it| fs::remove_file(record(it)).unwrap(), |_| {})?;
    forced(
        Kind::Alone,
        |it| {
            fs::remove_file(record(it)).unwrap();
            fs::create_dir(record(it)).unwrap();
        },
        |_| {},
    )
}
