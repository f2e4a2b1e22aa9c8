//! Failures and crashes at every single change, on the real kernel: whatever step they hit, the namespace ends
//! up as it was. The steps are counted, not listed, so a new one cannot be forgotten.

use std::path::Path;

use crate::faults::{self, Fault};
use crate::lab::{self, Pod};
use crate::{
    AttachError, Attachment, DetachError, Handover, Mode, Owner, attach, detach, detach_unrecorded, discover,
    plan,
};

const EVERY_KIND: [(Mode, Handover); 4] = [
    (Mode::Dynamic, Handover::Descriptor),
    (Mode::Dynamic, Handover::Name { uid: 65534 }),
    (Mode::Static, Handover::Descriptor),
    (Mode::Static, Handover::Name { uid: 65534 }),
];

fn planned(pod: &Pod, mode: Mode, handover: Handover) -> Attachment {
    let owner = Owner::new("web", Path::new("/run/urunc"));
    let planned =
        pod.inside.netns().run(|here| plan(&discover(here).unwrap().unwrap(), &owner, mode, handover));
    planned.unwrap().unwrap().attachment
}

/// Attaches with a fault at the given change; whether the fault came before the end.
fn attach_with(pod: &Pod, plan: &Attachment, fault: Fault, change: usize) -> (bool, Result<(), AttachError>) {
    let attached = pod.inside.netns().run(|here| {
        faults::arm(fault, change);
        let result = attach(here, plan).map(drop);
        (faults::disarm(), result)
    });
    attached.unwrap()
}

fn detach_now(pod: &Pod, record: &Attachment) {
    pod.inside.netns().run(|here| detach(here, record)).unwrap().unwrap();
}

/// Does `once` for the first change, the second, and so on, until the fault no longer strikes.
fn at_every_change(at_least: usize, mut once: impl FnMut(usize) -> bool) {
    let struck = (1..100).take_while(|change| once(*change)).count();
    assert!((at_least..99).contains(&struck), "{struck} changes");
}

/// N4, N6, N9: nothing stays behind, and nobody needs to be called for that.
#[test]
fn a_failure_at_any_step_leaves_the_namespace_as_it_was() {
    if !lab::ready() {
        return;
    }
    for qdisc in ["true", "tc qdisc add dev eth0 clsact"] {
        for (mode, handover) in EVERY_KIND {
            let pod = Pod::new();
            pod.inside.sh(qdisc);
            let before = pod.inside.dump();
            let plan = planned(&pod, mode, handover);
            at_every_change(9, |change| {
                let (struck, result) = attach_with(&pod, &plan, Fault::Error, change);
                assert_eq!(struck, result.is_err(), "{result:?}");
                if struck {
                    assert!(!matches!(result, Err(AttachError::NotUndone { .. })), "{result:?}");
                } else {
                    detach_now(&pod, &plan);
                }
                lab::restored(&pod.inside, &before);
                struck
            });
        }
    }
}

/// N4, F3: a crash at any step, and then the record is all there is.
#[test]
fn a_record_is_detached_in_any_state_of_completion() {
    if !lab::ready() {
        return;
    }
    for (mode, handover) in EVERY_KIND {
        let pod = Pod::new();
        let before = pod.inside.dump();
        let plan = planned(&pod, mode, handover);
        at_every_change(9, |change| {
            let (struck, result) = attach_with(&pod, &plan, Fault::Crash, change);
            assert_eq!(struck, result.is_err(), "{result:?}");
            detach_now(&pod, &plan);
            lab::restored(&pod.inside, &before);
            struck
        });
    }
}

/// F3: one step of clean-up that fails does not keep the others from being done.
#[test]
fn a_failure_while_detaching_is_reported_and_the_rest_is_done() {
    if !lab::ready() {
        return;
    }
    for (mode, handover) in EVERY_KIND {
        let pod = Pod::new();
        let before = pod.inside.dump();
        let plan = planned(&pod, mode, handover);
        at_every_change(2, |change| {
            drop(attach_with(&pod, &plan, Fault::Error, usize::MAX));
            let (struck, result) = pod
                .inside
                .netns()
                .run(|here| {
                    faults::arm(Fault::Error, change);
                    let result = detach(here, &plan);
                    (faults::disarm(), result)
                })
                .unwrap();
            match &result {
                Ok(()) => assert!(!struck),
                Err(DetachError::Parts { failures }) => assert_eq!(failures.len(), 1, "{result:?}"),
                Err(error) => panic!("{error}"),
            }
            // Of the filter and the device that it leads to, one at least is gone.
            let (leads_there, left) = (format!("\"to_dev\":\"{}\"", plan.tap), pod.inside.dump());
            assert!(!left.contains(&leads_there), "{left}");
            detach_now(&pod, &plan);
            lab::restored(&pod.inside, &before);
            struck
        });
    }
}

/// The record may be lost as well: the marks are still there.
#[test]
fn what_carries_the_mark_is_found_without_a_record() {
    if !lab::ready() {
        return;
    }
    for (mode, handover) in EVERY_KIND {
        let pod = Pod::new();
        pod.inside.sh("echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding");
        let before = pod.inside.dump();
        let plan = planned(&pod, mode, handover);
        at_every_change(8, |change| {
            let (struck, _) = attach_with(&pod, &plan, Fault::Crash, change);
            pod.inside.netns().run(|here| detach_unrecorded(here, &plan.owner)).unwrap().unwrap();
            lab::restored(&pod.inside, &before);
            struck
        });
    }
}
