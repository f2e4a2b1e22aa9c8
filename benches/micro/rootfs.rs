//! The mount table, the choice of a root file system, and composed initrds.

use std::hint::black_box;
use std::io::{self, Cursor};
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput};
use urunc_rootfs::initrd::{Addition, Content, Dialect, compose};
use urunc_rootfs::select::{
    ContainerRootfs, Facts, GuestSupport, MonitorSupport, MountRootfs, Support, Wish,
};
use urunc_rootfs::{Image, MountTable, select};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rootfs");
    for mounts in [30, 1000] {
        let text = mountinfo(mounts);
        group.bench_function(format!("mount table of {mounts} lines"), |bench| {
            bench.iter(|| MountTable::parse(black_box(text.as_bytes())));
        });
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = Image::open(directory.path()).expect("an image");
    let table = MountTable::read().expect("the mount table");
    let facts = Facts {
        wish: Wish { mount_rootfs: MountRootfs::Yes, ..Wish::default() },
        guest: GuestSupport {
            disks: Support::Yes,
            file_systems: vec!["ext4".to_owned()],
            virtiofs: Support::Yes,
            nine_p: Support::Yes,
        },
        monitor: MonitorSupport { virtiofs: Support::Yes, nine_p: Support::Yes },
        virtiofsd: Some(PathBuf::from("/usr/libexec/virtiofsd")),
        container: ContainerRootfs::probe(&image, &table).expect("the container's root file system"),
    };
    group.bench_function("selection", |bench| bench.iter(|| select(black_box(&facts))));
    for mib in [1, 50] {
        let base = initrd(mib);
        group.throughput(Throughput::Bytes(u64::try_from(base.len()).unwrap_or(0)));
        group.sample_size(if mib > 10 { 10 } else { 50 });
        group.bench_function(format!("initrd of {mib} MiB composed"), |bench| {
            let additions = [file("/etc/resolv.conf", vec![b'n'; 100])];
            bench.iter_batched(
                || Cursor::new(&base),
                |mut base| {
                    compose(&mut base, &additions, Dialect::Single, &mut io::sink()).expect("an initrd")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn file(path: &str, contents: Vec<u8>) -> Addition {
    Addition { path: path.into(), content: Content::File(contents), mode: 0o644, uid: 0, gid: 0, mtime: 0 }
}

/// An archive with files of 64 KiB.
fn initrd(mib: usize) -> Vec<u8> {
    let files: Vec<Addition> =
        (0..mib * 16).map(|number| file(&format!("/data/{number}"), vec![b'x'; 64 << 10])).collect();
    let mut archive = Vec::new();
    compose(&mut Cursor::new(&[]), &files, Dialect::Single, &mut archive).expect("an initrd");
    archive
}

fn mountinfo(lines: usize) -> String {
    let line = |number: usize| {
        format!(
            "{} 25 0:{number} / /run/containerd/io.containerd.runtime.v2.task/k8s.io/{number}/rootfs rw,relatime shared:{number} - \
             overlay overlay rw,lowerdir=/var/lib/containerd/{number}/fs,upperdir=/var/lib/containerd/u/{number},workdir=/w\n",
            number + 30
        )
    };
    (0..lines).map(line).collect()
}
