//! The shim without containerd: the test is its only client, and whom the shim would ask and tell is not there or does not answer.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, StartRequest, StateRequest, Status,
    WaitRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, SpecialFields};
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::ttrpc::context::{self, Context};
use containerd_shim_protos::{Client, TaskClient};
use libtest_mimic::Failed;
use serde_json::json;

use crate::Test;
use crate::containerd::{describe, eventually, guest};
use crate::need::Need;
use crate::world::World;

const GUEST: &[Need] = &[Need::Root, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "alone::a_guest_lives_without_containerds_api", needs: GUEST, run: refused },
    Test { name: "alone::a_guest_lives_though_containerds_api_does_not_answer", needs: GUEST, run: silent },
    Test {
        name: "alone::the_shim_enters_the_group_of_its_options",
        needs: &[Need::Root, Need::Guest],
        run: group,
    },
];

/// A group at the root of every hierarchy.
const MAKE_GROUPS: &str = r#"while read -r _ point type _; do
  case $type in cgroup | cgroup2) mkdir "$point/shims" ;; esac
done </proc/self/mounts"#;
const GROUPS_OF_SHIM: &str = r#"for it in /proc/[0-9]*; do
  if [ "$(readlink "$it/exe")" = /usr/local/bin/containerd-shim-urunc-v2 ]; then cat "$it/cgroup"; fi
done"#;
const BUNDLE: &str = "/run/bundle";

/// A world with a bundle whose image says that it is a unikernel.
fn with_bundle() -> World {
    let world = World::new();
    guest().archive(&world.at("/run"));
    let spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": format!("/run/image-{}/rootfs", guest().name)},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["hold"]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "mount"}]},
    });
    world.write(&format!("{BUNDLE}/config.json"), spec.to_string());
    world
}

/// Starts the shim as containerd would, and returns its socket.
fn start(world: &World, containerd: &str, options: &[u8]) -> PathBuf {
    let script = format!(
        "cd {BUNDLE} && exec containerd-shim-urunc-v2 -namespace n -id guest -address {containerd} start"
    );
    let mut command = world.command(&["sh", "-c", &script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(options).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", describe(&output));
    let address = String::from_utf8(output.stdout).unwrap();
    world.at(address.strip_prefix("unix://").unwrap())
}

fn connect(socket: &std::path::Path) -> TaskClient {
    TaskClient::new(Client::connect(&format!("unix://{}", socket.display())).unwrap())
}

fn soon() -> Context {
    context::with_duration(Duration::from_secs(120))
}

/// The whole life of a guest.
fn lives(world: &World, containerd: &str) {
    let before = world.inventory();
    let socket = start(world, containerd, &[]);
    let shim = connect(&socket);
    let id = "guest".to_owned();
    let request =
        CreateTaskRequest { id: id.clone(), bundle: BUNDLE.to_owned(), ..CreateTaskRequest::default() };
    let created = shim.create(soon(), &request).unwrap();
    assert_ne!(created.pid, 0);
    shim.start(soon(), &StartRequest { id: id.clone(), ..StartRequest::default() }).unwrap();
    let state = || shim.state(soon(), &StateRequest { id: id.clone(), ..StateRequest::default() }).unwrap();
    assert_eq!(state().status.unwrap(), Status::RUNNING);
    let kill = KillRequest { id: id.clone(), signal: 9, ..KillRequest::default() };
    shim.kill(soon(), &kill).unwrap();
    let ended = shim.wait(soon(), &WaitRequest { id: id.clone(), ..WaitRequest::default() }).unwrap();
    assert_eq!(ended.exit_status, 137);
    let deleted = shim.delete(soon(), &DeleteRequest { id, ..DeleteRequest::default() }).unwrap();
    assert_eq!(deleted.exit_status, 137);
    // It ends though nobody has taken its events.
    let _ = shim.shutdown(soon(), &ShutdownRequest::default());
    world.assert_as_before(&before);
}

/// Annotations are asked for and not had, and `urunc.json` is enough.
fn refused() -> Result<(), Failed> {
    lives(&with_bundle(), "/run/nobody.sock");
    Ok(())
}

fn silent() -> Result<(), Failed> {
    let world = with_bundle();
    // Connections are made, and nobody ever accepts them.
    let _listener = std::os::unix::net::UnixListener::bind(world.at("/run/silent.sock")).unwrap();
    lives(&world, "/run/silent.sock");
    Ok(())
}

/// `ShimCgroup`, as Kubernetes' distributions set it to count shims to their own group.
fn group() -> Result<(), Failed> {
    let world = with_bundle();
    let options = |group: &str| {
        let options = Options { shim_cgroup: group.to_owned(), ..Options::default() };
        let any = Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: options.write_to_bytes().unwrap(),
            special_fields: SpecialFields::default(),
        };
        any.write_to_bytes().unwrap()
    };
    world.ok(&["sh", "-c", MAKE_GROUPS]);
    // Groups of cpuset take nobody in before they have something to offer.
    world.output(&[
        "sh",
        "-c",
        "cd /sys/fs/cgroup/cpuset && for it in cpus mems; do cat cpuset.$it >shims/cpuset.$it; done",
    ]);
    let socket = start(&world, "/run/nobody.sock", &options("/shims"));
    let groups = world.ok(&["sh", "-c", GROUPS_OF_SHIM]);
    let inside = groups.lines().filter(|line| line.ends_with("/shims")).count();
    assert!(
        inside > 0 && groups.lines().all(|line| line.ends_with("/shims") || line.starts_with("0:")),
        "{groups}"
    );
    let _ = connect(&socket).shutdown(soon(), &ShutdownRequest::default());
    assert!(eventually(|| !socket.exists()));
    // A group that is not there is an error, and no shim is started.
    let script =
        format!("cd {BUNDLE} && exec containerd-shim-urunc-v2 -namespace n -id guest -address /run/x start");
    fs::write(world.at("/run/options"), options("/nowhere")).unwrap();
    let output = world.output(&["sh", "-c", &format!("({script}) </run/options")]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"), "{}", describe(&output));
    // The first shim may stay for a moment to answer what it has been asked.
    assert!(eventually(|| !world.processes().iter().any(|line| line.contains("-socket"))));
    Ok(())
}
