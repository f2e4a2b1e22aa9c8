//! Knative Serving puts a proxy beside the user's container, which reaches it, and asks whether it is ready, on the pod's
//! loopback. A guest is not there: it has an address of its own behind the pod's. The proxy is told so by its environment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

/// Under which containerd's CRI plugin says how a container is called in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// The name of the container with the user's workload.
pub const USER_CONTAINER: &str = "user-container";
/// The name of the proxy.
const QUEUE_PROXY: &str = "queue-proxy";
/// Under which containerd's CRI plugin says which pod a container belongs to.
const POD: &str = "io.kubernetes.cri.sandbox-id";
/// The proxy's variable with the user's readiness probe, as Kubernetes' JSON.
const PROBE: &str = "SERVING_READINESS_PROBE";
/// The proxy's variable with the address that it sends requests to.
const REDIRECT: &str = "REDIRECT_IP";

/// Whether these are the annotations and the environment of Knative's proxy. The name alone does not make one (B41).
#[must_use]
pub fn is_queue_proxy(annotations: &BTreeMap<String, String>, env: &[String]) -> bool {
    annotations.get(CONTAINER_NAME).is_some_and(|name| name == QUEUE_PROXY)
        && env.iter().any(|variable| value_of(variable, PROBE).is_some())
}

/// Whether `other` is the user's container in the pod of the proxy with the annotations `proxy`.
#[must_use]
pub fn is_its_user_container(proxy: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    proxy.get(POD).is_some_and(|pod| other.get(POD) == Some(pod))
        && other.get(CONTAINER_NAME).is_some_and(|name| name == USER_CONTAINER)
}

/// Points the proxy with the specification `spec` to `guest`. Everything else stays as it is, the order of variables
/// included (B48). `false` if nothing had to be changed.
pub fn redirect(spec: &mut Value, guest: Ipv4Addr) -> bool {
    let Some(env) = spec.pointer_mut("/process/env").and_then(Value::as_array_mut) else { return false };
    let before = env.clone();
    let address = guest.to_string();
    for variable in env.iter_mut() {
        let probe = variable.as_str().and_then(|text| value_of(text, PROBE));
        if let Some(mut probe) = probe.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            point(&mut probe, &address);
            *variable = json!(format!("{PROBE}={probe}"));
        }
    }
    let redirect = json!(format!("{REDIRECT}={address}"));
    match env.iter_mut().find(|it| it.as_str().is_some_and(|text| value_of(text, REDIRECT).is_some())) {
        Some(existing) => *existing = redirect,
        None => env.push(redirect),
    }
    *env != before
}

/// Sets the host of every probe by TCP or HTTP, also where there is none: the proxy would take its own then. Newer versions
/// have a list of probes.
fn point(probe: &mut Value, address: &str) {
    match probe {
        Value::Array(all) => all.iter_mut().for_each(|one| point(one, address)),
        Value::Object(fields) => {
            for kind in ["tcpSocket", "httpGet"] {
                if let Some(action) = fields.get_mut(kind).and_then(Value::as_object_mut) {
                    set_host(action, address);
                }
            }
        }
        _ => {}
    }
}

fn set_host(action: &mut Map<String, Value>, address: &str) {
    action.insert("host".to_owned(), json!(address));
}

/// The value of `variable`, if its name is exactly `name`.
fn value_of<'a>(variable: &'a str, name: &str) -> Option<&'a str> {
    variable.strip_prefix(name)?.strip_prefix('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 2);

    fn environment(spec: &Value) -> Vec<&str> {
        spec["process"]["env"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
    }

    #[test]
    fn the_proxy_is_pointed_to_the_guest_and_nothing_else_changes() {
        let mut spec = json!({
            "future": {"field": 1},
            "process": {"env": [
                "A=1",
                r#"SERVING_READINESS_PROBE={"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#,
                "SERVING_READINESS_PROBE_OTHER={\"tcpSocket\":{\"host\":\"127.0.0.1\"}}",
                "Z=",
            ]},
        });
        assert!(redirect(&mut spec, GUEST));
        assert_eq!(
            environment(&spec),
            [
                "A=1",
                r#"SERVING_READINESS_PROBE={"successThreshold":1,"tcpSocket":{"host":"172.16.1.2","port":8080}}"#,
                "SERVING_READINESS_PROBE_OTHER={\"tcpSocket\":{\"host\":\"127.0.0.1\"}}",
                "Z=",
                "REDIRECT_IP=172.16.1.2",
            ]
        );
        assert_eq!(spec["future"]["field"], 1);
        // A proxy that is created again has been redirected already.
        assert!(!redirect(&mut spec, GUEST));
    }

    #[test]
    fn every_kind_of_probe_is_understood() {
        for (probe, expected) in [
            (
                r#"{"httpGet":{"path":"/","port":80}}"#,
                r#"{"httpGet":{"host":"172.16.1.2","path":"/","port":80}}"#,
            ),
            (
                r#"[{"tcpSocket":{"port":1}},{"grpc":{"port":2}}]"#,
                r#"[{"tcpSocket":{"host":"172.16.1.2","port":1}},{"grpc":{"port":2}}]"#,
            ),
            (r#"{"exec":{"command":["host"]}}"#, r#"{"exec":{"command":["host"]}}"#),
            ("no JSON", "no JSON"),
            ("", ""),
        ] {
            let mut spec = json!({"process": {"env": [format!("SERVING_READINESS_PROBE={probe}")]}});
            redirect(&mut spec, GUEST);
            assert_eq!(environment(&spec)[0], format!("SERVING_READINESS_PROBE={expected}"));
        }
        assert!(!redirect(&mut json!({"process": {}}), GUEST));
    }

    #[test]
    fn a_name_alone_makes_no_proxy() {
        let annotations = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let proxy = annotations(&[(CONTAINER_NAME, "queue-proxy"), (POD, "p")]);
        let probe = ["SERVING_READINESS_PROBE={}".to_owned()];
        assert!(is_queue_proxy(&proxy, &probe));
        assert!(!is_queue_proxy(&proxy, &["SERVING_READINESS_PROBE_X=".to_owned()]));
        assert!(!is_queue_proxy(&annotations(&[(CONTAINER_NAME, "other")]), &probe));
        let user = annotations(&[(CONTAINER_NAME, "user-container"), (POD, "p")]);
        assert!(is_its_user_container(&proxy, &user));
        assert!(!is_its_user_container(
            &proxy,
            &annotations(&[(CONTAINER_NAME, "user-container"), (POD, "q")])
        ));
        assert!(!is_its_user_container(&proxy, &annotations(&[(CONTAINER_NAME, "sidecar"), (POD, "p")])));
        assert!(!is_its_user_container(
            &annotations(&[]),
            &annotations(&[(CONTAINER_NAME, "user-container")])
        ));
    }
}
