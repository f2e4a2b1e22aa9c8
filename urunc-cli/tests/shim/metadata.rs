//! Guest annotations that only containerd knows: of the image's manifest, and labels.

use libtest_mimic::Failed;

use crate::Test;
use crate::containerd::{Containerd, Need, RUNTIME, describe, guest, shown};
use crate::image::{Described, Image};

const GUEST: &[Need] = &[Need::Root, Need::Containerd, Need::Guest];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "metadata::annotations_of_the_manifest_reach_the_guest", needs: GUEST, run: manifest },
    Test { name: "metadata::annotations_behind_an_index_reach_the_guest", needs: GUEST, run: index },
    Test { name: "metadata::labels_do_where_there_is_nothing_else", needs: GUEST, run: labels },
    Test { name: "metadata::the_specification_wins_over_the_manifest", needs: GUEST, run: precedence },
];

fn runs(image: &Image, options: &[&str]) {
    let containerd = Containerd::start(std::slice::from_ref(image));
    let mut all = vec!["--rm"];
    all.extend_from_slice(options);
    let output = containerd.run(&all, image, "guest", &["hello", "exit=3"]);
    assert_eq!(output.status.code(), shown(3), "{}\n{}", describe(&output), containerd.log());
    containerd.assert_clean();
}

fn manifest() -> Result<(), Failed> {
    runs(&Image { described: Described::InManifest, ..guest() }, &[]);
    Ok(())
}

/// B45: an image for several architectures never got its annotations.
fn index() -> Result<(), Failed> {
    runs(&Image { described: Described::BehindIndex, ..guest() }, &[]);
    Ok(())
}

fn labels() -> Result<(), Failed> {
    let labels: Vec<String> =
        guest().annotations().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let options: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    runs(&Image { described: Described::Not, ..guest() }, &options);
    Ok(())
}

fn precedence() -> Result<(), Failed> {
    let image = Image { described: Described::InManifest, ..guest() };
    let containerd = Containerd::start(std::slice::from_ref(&image));
    let wrong = "com.urunc.unikernel.binary=/boot/other";
    let output = containerd.run(&["--rm", "--annotation", wrong], &image, "guest", &[]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("/boot/other"),
        "{RUNTIME}: {}",
        describe(&output)
    );
    containerd.assert_clean();
    Ok(())
}
