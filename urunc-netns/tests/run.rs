//! The executor on real namespaces: it works where it should and nowhere else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::fs;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use lab::Lab;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use urunc_netns::{HostNetwork, NetNs, NsError, RunError, discover};

/// What a thread sees as its namespace, independently of the crate.
fn seen() -> String {
    fs::read_link("/proc/thread-self/ns/net").unwrap().into_os_string().into_string().unwrap()
}

#[test]
fn the_closure_runs_inside_and_the_caller_stays_outside() {
    if !lab::ready() {
        return;
    }
    let (lab, before) = (Lab::new(), seen());
    let ns = lab.netns();
    let (inside, id) = ns.run(|here| (seen(), here.id())).unwrap();
    assert_eq!(inside, lab.sh("readlink /proc/self/ns/net").trim());
    assert_eq!(inside, id.to_string());
    assert_ne!(inside, before);
    assert_eq!(seen(), before);
}

#[test]
fn an_error_and_an_early_return_leave_the_caller_alone() {
    if !lab::ready() {
        return;
    }
    let (lab, before) = (Lab::new(), seen());
    let result = lab
        .netns()
        .run(|_| -> Result<(), String> { Err("no".parse::<u8>().map_err(|e| e.to_string())?.to_string()) });
    assert_eq!(result.unwrap(), Err("invalid digit found in string".to_owned()));
    assert_eq!(seen(), before);
}

#[test]
fn a_panic_becomes_an_error_and_leaves_the_caller_alone() {
    if !lab::ready() {
        return;
    }
    let (lab, before) = (Lab::new(), seen());
    let ns = lab.netns();
    let error = ns.run(|_| panic!("on purpose: {}", 7)).map(|()| "no error").unwrap_err();
    assert!(matches!(&error, RunError::Panicked { message } if message == "on purpose: 7"), "{error}");
    assert_eq!(seen(), before);
    assert!(ns.run(|_| seen() != before).unwrap(), "the namespace is still good");
}

/// F2, N17: with a thread that somebody else could use, one of these would see a wrong namespace.
#[test]
fn ten_thousand_runs_from_eight_threads_never_see_the_wrong_namespace() {
    if !lab::ready() {
        return;
    }
    let labs: Vec<Lab> = (0..8).map(|_| Lab::new()).collect();
    for (number, lab) in labs.iter().enumerate() {
        lab.sh(&format!("ip link add only{number} type veth peer name other; ip link set only{number} up"));
    }
    let namespaces: Vec<(NetNs, String)> = labs
        .iter()
        .map(|lab| (lab.netns(), lab.sh("readlink /proc/self/ns/net").trim().to_owned()))
        .collect();
    let home = seen();
    let runs = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (namespaces, home, runs) = (&namespaces, &home, &runs);
            scope.spawn(move || {
                for round in 0..1250 {
                    let number = (worker + round) % 8;
                    let (ns, expected) = &namespaces[number];
                    // Every tenth time the kernel's answer over netlink counts, too: the link's name.
                    let found = ns.run(|here| {
                        let found = (round % 10 == 0).then(|| discover(here).unwrap().unwrap());
                        (seen(), found)
                    });
                    let (inside, found) = found.unwrap();
                    assert_eq!(&inside, expected);
                    if let Some(found) = found {
                        assert_eq!(found.network.interface.name.as_str(), format!("only{number}"));
                    }
                    assert_eq!(&seen(), home);
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(runs.into_inner(), 10_000);
}

/// N1: without the check, the redirect would go onto the host's own interface.
#[test]
fn the_hosts_own_namespace_is_refused_unless_it_is_allowed() {
    if !lab::ready() {
        return;
    }
    // Whoever lacks a capability that process 1 has may not look at its namespace.
    let hosts = ["/proc/self/ns/net", "/proc/1/ns/net"].map(NetNs::open);
    assert!(hosts[0].is_ok());
    for ns in hosts.into_iter().flatten() {
        assert!(ns.is_hosts());
        let error = ns.run(|_| ()).unwrap_err();
        assert!(matches!(error, RunError::HostNetwork { id } if id == ns.id()), "{error}");
        assert!(error.to_string().contains("host's own network namespace"), "{error}");
    }
    let before = seen();
    let allowed = NetNs::current().unwrap().with_host(HostNetwork::Allow);
    assert_eq!(allowed.run(|_| seen()).unwrap(), before);
    assert!(!Lab::new().netns().is_hosts());
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let fifo = file.path().with_extension("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // An empty file is what an unmounted /run/netns/NAME is; opening the fifo must not wait for a writer.
    for path in
        [file.path(), fifo.as_path(), "/proc/self/ns/mnt".as_ref(), "/dev/null".as_ref(), "/".as_ref()]
    {
        let error = NetNs::open(path).unwrap_err();
        assert!(matches!(&error, NsError::NotNetwork { path: named } if named == path), "{error}");
    }
    fs::remove_file(&fifo).unwrap();
}

#[test]
fn a_descriptor_is_taken_over_if_it_is_of_a_network_namespace() {
    if !lab::ready() {
        return;
    }
    let open = |path: &str| std::os::fd::OwnedFd::from(fs::File::open(path).unwrap());
    let lab = Lab::new();
    let ns = NetNs::from_fd(open(lab.path().to_str().unwrap())).unwrap();
    assert_eq!(ns, lab.netns());
    assert_eq!(ns.run(|_| seen()).unwrap(), lab.sh("readlink /proc/self/ns/net").trim());
    for other in ["/proc/self/ns/mnt", "/dev/null", "/"] {
        let error = NetNs::from_fd(open(other)).unwrap_err();
        assert!(
            matches!(&error, NsError::NotNetwork { path } if path.starts_with("/proc/self/fd/")),
            "{error}"
        );
    }
    // A descriptor that was opened as a path answers no question.
    let path_only =
        rustix::fs::open(lab.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    assert!(matches!(NetNs::from_fd(path_only), Err(NsError::Open { .. })));
}

/// N3: a path that has vanished must not lead anywhere else.
#[test]
fn a_vanished_path_is_missing() {
    let error = NetNs::open("/run/netns/no-such-namespace").unwrap_err();
    assert!(matches!(error, NsError::Missing { .. }), "{error}");
    assert_eq!(error.to_string(), "network namespace /run/netns/no-such-namespace does not exist");
}

/// N2: the process is what the pidfd says, not what its number has become.
#[test]
fn a_namespace_is_found_through_a_live_process_only() {
    if !lab::ready() {
        return;
    }
    let lab = Lab::new();
    let mut process = lab.command("sleep").arg("infinity").stdin(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&process);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    // The process is nsenter first, and sleep in the namespace a moment later.
    lab::until("sleep is in its namespace", || NetNs::of_process(pidfd.as_fd()).unwrap() == lab.netns());
    process.kill().unwrap();
    lab::until("the process is a zombie", || {
        fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap().contains(") Z ")
    });
    assert!(matches!(NetNs::of_process(pidfd.as_fd()), Err(NsError::ProcessGone)), "a zombie");
    process.wait().unwrap();
    assert!(matches!(NetNs::of_process(pidfd.as_fd()), Err(NsError::ProcessGone)), "reaped");
}

#[test]
fn identity_is_of_the_namespace_and_not_of_the_descriptor() {
    if !lab::ready() {
        return;
    }
    let (a, b) = (Lab::new(), Lab::new());
    assert_eq!(a.netns(), a.netns());
    assert_ne!(a.netns(), b.netns());
    assert_eq!(a.netns().run(|_| NetNs::current().unwrap().id()).unwrap(), a.netns().id());
    let json = serde_json::to_string(&a.netns().id()).unwrap();
    assert_eq!(serde_json::from_str::<urunc_netns::NsId>(&json).unwrap(), a.netns().id());
}
