//! A process that uses the library for many containers, as an embedder does, holds as many descriptors after each as after
//! the first. It is this very binary: creating needs a process with one thread.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use urunc_cli::config::Config;
use urunc_cli::lifecycle::{CgroupDriver, Console, CreateRequest, Force, Keyring, Runtime};
use urunc_state::{ContainerId, Signal};

use crate::ground::{Ground, Kind};
use crate::scene::{describe, passed};

/// How many containers there are, one after the other.
const LIVES: usize = 30;

/// The first argument of such a process.
const MARKER: &str = "count-descriptors";

/// Runs such a process in both kinds of scene.
pub(crate) fn constant() -> Result<(), Failed> {
    for kind in [Kind::Alone, Kind::InPod] {
        let ground = Ground::new(kind);
        let scene = &ground.scene;
        let paths = [scene.root(), scene.path("config.toml"), scene.path("bundle")];
        let mut command = Command::new(std::env::current_exe().unwrap());
        // The containers inherit the streams, and must not keep them open for us.
        let said = fs::File::create(scene.path("said")).unwrap();
        command.arg(MARKER).args(&paths).stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let output = command.output().unwrap();
        let said = fs::read_to_string(scene.path("said")).unwrap();
        fs::remove_file(scene.path("said")).unwrap();
        assert!(output.status.success(), "{}{said}", describe(&output));
        let counts: Vec<&str> = said.lines().filter(|line| line.parse::<usize>().is_ok()).collect();
        assert_eq!(counts.len(), LIVES, "{said}");
        // The first container may bring in what is kept for the next ones.
        assert!(counts[1..].iter().all(|count| *count == counts[1]), "{counts:?}");
        let changes = ground.changes();
        assert!(changes.is_empty(), "{changes:#?}");
    }
    passed()
}

/// The paths of a process that is to do it.
pub(crate) fn asked_for() -> Option<[String; 3]> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next()? == MARKER).then_some(())?;
    Some([arguments.next()?, arguments.next()?, arguments.next()?])
}

/// Lets containers come and go, and writes the number of open descriptors after each.
pub(crate) fn run([root, config, bundle]: &[String; 3]) {
    let config = Config::load(Some(config.into())).unwrap();
    let runtime = Runtime::open(Some(Path::new(root)), config).unwrap();
    let id = ContainerId::new("c").unwrap();
    for _ in 0..LIVES {
        let request = CreateRequest {
            pidfd_socket: None,
            id: id.clone(),
            bundle: bundle.into(),
            console: Console::None,
            pid_file: None,
            cgroups: CgroupDriver::Cgroupfs,
            keyring: Keyring::New,
        };
        let created = runtime.create(&request).unwrap();
        runtime.start(&id).unwrap();
        runtime.kill(&id, Signal::KILL).unwrap();
        runtime.delete(&id, Force::No).unwrap();
        waitid(WaitId::PidFd(created.process.pidfd()), WaitIdOptions::EXITED).unwrap();
        drop(created);
        eprintln!("{}", fs::read_dir("/proc/self/fd").unwrap().count());
    }
}
