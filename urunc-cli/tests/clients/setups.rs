//! What people copy from `examples/`, where no client of its own reads it: the objects of Kubernetes, as the kubelet would turn them into calls, and the
//! templates of k3s. The configurations of containerd, Docker and Podman are what the tests of those use.

use std::fs;

use libtest_mimic::Failed;
use yaml_rust2::{Yaml, YamlLoader};

use crate::Test;
use crate::containerd::{guest, plain};
use crate::image::Image;
use crate::kubelet::{Container, Node, Pod, State};
use crate::need::{Need, containerd_major};
use crate::world::examples;

const GUEST: &[Need] = &[Need::Root, Need::Cri, Need::Runc, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "setups::the_pod_of_the_runtime_class_runs", needs: GUEST, run: kubernetes },
    Test { name: "setups::the_template_of_k3s_adds_the_runtime", needs: GUEST, run: k3s },
];

/// The image that the pod names, and that anybody would build for themselves.
fn my_unikernel() -> Image {
    Image { name: "my-unikernel", ..guest() }
}

fn yaml(name: &str) -> Yaml {
    let text = fs::read_to_string(examples().join("kubernetes").join(name)).unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

fn words(list: &Yaml) -> Vec<&str> {
    list.as_vec().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

/// A quantity of memory (k8s.io/apimachinery, "resource.Quantity").
fn bytes(quantity: &Yaml) -> u64 {
    quantity.as_str().map_or(0, |text| text.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() << 20)
}

/// Runs the pod of `examples/kubernetes` on a node.
fn runs_the_pod(node: &Node) {
    let (class, wanted) = (yaml("runtimeclass.yaml"), yaml("pod.yaml"));
    assert_eq!(class["kind"].as_str(), Some("RuntimeClass"));
    // The API server looks the class up by its name, and the kubelet hands on its handler.
    assert_eq!(wanted["spec"]["runtimeClassName"], class["metadata"]["name"]);
    let pod = Pod {
        name: wanted["metadata"]["name"].as_str().unwrap(),
        handler: class["handler"].as_str().unwrap(),
        ..Pod::default()
    };
    let before = node.world.inventory();
    let id = node.run_pod(&pod);
    for wanted in wanted["spec"]["containers"].as_vec().unwrap() {
        let container = node.run_container(
            (&pod, &id),
            &Container {
                name: wanted["name"].as_str().unwrap(),
                image: wanted["image"].as_str().unwrap(),
                command: words(&wanted["command"]),
                args: words(&wanted["args"]),
                memory: bytes(&wanted["resources"]["limits"]["memory"]),
            },
        );
        assert_eq!(node.state(&container), State::Running);
    }
    node.prints(&pod, "unikernel", "memory: 64 MiB");
    node.prints(&pod, "unikernel", "holding until told to stop");
    node.remove_pod(&id);
    node.world.assert_as_before_but(&before, &["cni0"]);
}

fn kubernetes() -> Result<(), Failed> {
    runs_the_pod(&Node::start(&[my_unikernel(), plain()]));
    Ok(())
}

/// k3s fills in its own configuration, which has runc, at the place of `base`.
fn k3s() -> Result<(), Failed> {
    let (name, base) = if containerd_major() == Some(1) {
        (
            "config.toml.tmpl",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n",
        )
    } else {
        (
            "config-v3.toml.tmpl",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n",
        )
    };
    let template = fs::read_to_string(examples().join("k3s").join(name)).unwrap();
    let config = template.replace("{{ template \"base\" . }}", base);
    assert_ne!(config, template);
    runs_the_pod(&Node::with_config(&config, &[my_unikernel(), plain()]));
    Ok(())
}
