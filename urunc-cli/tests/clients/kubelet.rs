//! What the kubelet does: it speaks CRI (k8s.io/cri-api, runtime/v1/api.proto, whose field numbers these are) to containerd's socket.

use std::fs;
use std::process::Output;
use std::time::Duration;

use urunc_cli::shim::grpc::Connection;

use crate::containerd::{PATIENCE, describe, eventually, plain};
use crate::image::Image;
use crate::need::containerd_major;
use crate::wire::{Message, bytes, map, message, number};
use crate::world::World;

/// Where CRI's own default would be a registry's pause image or what this machine cannot do.
const MACHINE_1: &str = r#"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:latest"
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/run/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/opt"
"#;
const MACHINE_2: &str = r#"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "registry.example/pause:latest"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/run/cni"
[plugins.'io.containerd.internal.v1.opt']
  path = "/run/opt"
"#;

/// A bridge, as small clusters have it.
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
    "ipam": {"type": "host-local", "dataDir": "/run/cni-addresses", "ranges": [[{"subnet": "10.22.0.0/16"}]],
             "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}"#;

/// In CRI's `NamespaceMode`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pids {
    /// A pod's containers share a namespace: `shareProcessNamespace`.
    Pod = 0,
    /// Each has its own.
    Container = 1,
}

/// A container's status in CRI.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited(u64),
    Unknown,
}

/// A pod as the kubelet asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Pod<'a> {
    pub(crate) name: &'a str,
    pub(crate) handler: &'a str,
    pub(crate) annotations: Vec<(&'a str, &'a str)>,
    pub(crate) pids: Pids,
}

impl Default for Pod<'_> {
    fn default() -> Self {
        Self { name: "pod", handler: "urunc", annotations: Vec::new(), pids: Pids::Container }
    }
}

impl Pod<'_> {
    fn config(&self) -> Vec<u8> {
        let metadata = [bytes(1, self.name), bytes(2, format!("uid-{}", self.name)), bytes(3, "default")];
        let security = message(2, &[message(1, &[number(2, pids(self.pids))])]);
        [
            message(1, &metadata),
            bytes(2, self.name),
            bytes(3, format!("/var/log/pods/{}", self.name)),
            map(7, self.annotations.iter().copied()),
            message(8, &[security]),
        ]
        .concat()
    }
}

fn pids(mode: Pids) -> u64 {
    match mode {
        Pids::Pod => 0,
        Pids::Container => 1,
    }
}

/// A container as the kubelet asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Container<'a> {
    pub(crate) name: &'a str,
    /// The image's reference.
    pub(crate) image: &'a str,
    /// In place of the image's entry point.
    pub(crate) command: Vec<&'a str>,
    pub(crate) args: Vec<&'a str>,
    /// The limit; 0 for none.
    pub(crate) memory: u64,
}

impl<'a> Container<'a> {
    pub(crate) fn new(name: &'a str, image: &'a str, args: &[&'a str]) -> Self {
        Self { name, image, command: Vec::new(), args: args.to_vec(), memory: 128 << 20 }
    }
}

/// A node of a cluster: containerd with a network for pods, and what drives it.
pub(crate) struct Node {
    pub(crate) world: World,
}

impl Node {
    /// Starts containerd with the configuration of `examples/containerd` for its version.
    pub(crate) fn start(images: &[Image]) -> Self {
        let example = if containerd_major() == Some(1) { "config-1.toml" } else { "config-2.toml" };
        let text = fs::read_to_string(crate::world::examples().join("containerd").join(example)).unwrap();
        Self::with_config(&text, images)
    }

    /// Starts containerd with a configuration, to which is added what this machine and its lack of a registry demand.
    pub(crate) fn with_config(config: &str, images: &[Image]) -> Self {
        let machine = if containerd_major() == Some(1) { MACHINE_1 } else { MACHINE_2 };
        let node = Self { world: World::new() };
        node.world.write("/etc/containerd/config.toml", format!("{config}{machine}{PATIENCE}"));
        node.world.write("/run/cni/10-pods.conflist", NETWORK);
        node.launch();
        let pause = Image { name: "pause", command: &["/bin/busybox", "sleep", "2147483647"], ..plain() };
        for image in std::iter::once(&pause).chain(images) {
            image.archive(&node.world.at("/run"));
            let archive = format!("/run/image-{}/archive.tar", image.name);
            node.world.ok(&["ctr", "--namespace", "k8s.io", "images", "import", &archive]);
            let request = message(1, &[bytes(1, image.reference())]);
            let known = || {
                let status = node.try_call("/runtime.v1.ImageService/ImageStatus", &request);
                status.is_some_and(|status| !status.message(1).0.is_empty())
            };
            assert!(eventually(known), "{}", node.world.log());
        }
        node
    }

    /// Starts containerd, again after it was killed.
    pub(crate) fn launch(&self) {
        self.world.daemon(&["containerd"]);
        let serves = || self.world.output(&["ctr", "version"]).status.success();
        assert!(eventually(serves), "{}", self.world.log());
    }

    fn try_call(&self, method: &'static str, request: &[u8]) -> Option<Message> {
        let socket = self.world.at("/run/containerd/containerd.sock");
        let mut connection = Connection::open(&socket, "k8s.io", Duration::from_secs(180)).ok()?;
        connection.call(method, request).ok()?.first().cloned().map(Message)
    }

    fn call(&self, method: &'static str, request: &[u8]) -> Message {
        self.try_call(method, request).unwrap_or_else(|| panic!("{method} fails\n{}", self.world.log()))
    }

    /// The id of the new pod.
    pub(crate) fn run_pod(&self, pod: &Pod<'_>) -> String {
        let request = [bytes(1, pod.config()), bytes(2, pod.handler)].concat();
        self.call("/runtime.v1.RuntimeService/RunPodSandbox", &request).text(1)
    }

    /// The pod's address.
    pub(crate) fn address(&self, id: &str) -> String {
        let status = self.call("/runtime.v1.RuntimeService/PodSandboxStatus", &bytes(1, id));
        status.message(1).message(5).text(1)
    }

    /// The id of the new container, if it can be created.
    pub(crate) fn try_create(
        &self,
        (pod, id): (&Pod<'_>, &str),
        container: &Container<'_>,
    ) -> Option<String> {
        let words = |field: u32, words: &[&str]| -> Vec<u8> {
            words.iter().flat_map(|word| bytes(field, word)).collect()
        };
        let resources = message(1, &[number(4, container.memory)]);
        let security = message(2, &[message(3, &[number(2, pids(pod.pids))])]);
        let config = [
            message(1, &[bytes(1, container.name)]),
            message(2, &[bytes(1, container.image)]),
            words(3, &container.command),
            words(4, &container.args),
            bytes(11, format!("{}.log", container.name)),
            message(15, &[resources, security]),
        ];
        let request = [bytes(1, id), message(2, &config), bytes(3, pod.config())].concat();
        let answer = self.try_call("/runtime.v1.RuntimeService/CreateContainer", &request)?;
        Some(answer.text(1))
    }

    /// Creates and starts a container.
    pub(crate) fn run_container(&self, pod: (&Pod<'_>, &str), container: &Container<'_>) -> String {
        let id = self.try_create(pod, container);
        let id = id.unwrap_or_else(|| panic!("cannot create {container:?}\n{}", self.world.log()));
        self.call("/runtime.v1.RuntimeService/StartContainer", &bytes(1, &id));
        id
    }

    /// The same, of an image with its arguments.
    pub(crate) fn run(&self, pod: (&Pod<'_>, &str), name: &str, image: &Image, words: &[&str]) -> String {
        let reference = image.reference();
        self.run_container(pod, &Container::new(name, &reference, words))
    }

    pub(crate) fn try_start(&self, id: &str) -> bool {
        self.try_call("/runtime.v1.RuntimeService/StartContainer", &bytes(1, id)).is_some()
    }

    pub(crate) fn state(&self, id: &str) -> State {
        let status = self.call("/runtime.v1.RuntimeService/ContainerStatus", &bytes(1, id)).message(1);
        match status.number(3) {
            0 => State::Created,
            1 => State::Running,
            2 => State::Exited(status.number(7)),
            _ => State::Unknown,
        }
    }

    /// CPU time in nanoseconds and memory in bytes.
    pub(crate) fn stats(&self, id: &str) -> (u64, u64) {
        let answer = self.call("/runtime.v1.RuntimeService/ContainerStats", &bytes(1, id));
        let stats = answer.message(1);
        (stats.message(2).message(2).number(1), stats.message(3).message(2).number(1))
    }

    /// What a command in a container printed, and how it ended.
    pub(crate) fn exec(&self, id: &str, words: &[&str]) -> Option<(String, u64)> {
        let words: Vec<u8> = words.iter().flat_map(|word| bytes(2, word)).collect();
        let request = [bytes(1, id), words, number(3, 20)].concat();
        let answer = self.try_call("/runtime.v1.RuntimeService/ExecSync", &request)?;
        Some((answer.text(1), answer.number(3)))
    }

    /// With a grace in seconds.
    pub(crate) fn stop(&self, id: &str, grace: u64) {
        self.call("/runtime.v1.RuntimeService/StopContainer", &[bytes(1, id), number(2, grace)].concat());
    }

    pub(crate) fn remove(&self, id: &str) {
        self.call("/runtime.v1.RuntimeService/RemoveContainer", &bytes(1, id));
    }

    pub(crate) fn remove_pod(&self, id: &str) {
        self.call("/runtime.v1.RuntimeService/StopPodSandbox", &bytes(1, id));
        self.call("/runtime.v1.RuntimeService/RemovePodSandbox", &bytes(1, id));
    }

    /// A container's log, as the kubelet finds it.
    pub(crate) fn log(&self, pod: &Pod<'_>, name: &str) -> String {
        let path = format!("/var/log/pods/{}/{name}.log", pod.name);
        fs::read_to_string(self.world.at(&path)).unwrap_or_default()
    }

    pub(crate) fn prints(&self, pod: &Pod<'_>, name: &str, text: &str) {
        let log = || self.log(pod, name);
        assert!(eventually(|| log().contains(text)), "{}\n{}", log(), self.world.log());
    }

    pub(crate) fn ping(&self, address: &str) {
        let output: Output = self.world.output(&["ping", "-c", "3", "-i", "0.2", "-W", "5", address]);
        assert!(output.status.success(), "{}\n{}", describe(&output), self.world.log());
    }
}
