//! Replacing a file of the bundle: whoever reads it, now or after a crash, finds the old contents or the new (F5, B19).

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use atomicwrites::{AtomicFile, OverwriteBehavior};

/// Replaces a file, or makes it. It keeps its permissions; nothing is left beside it if this fails.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let permissions = fs::metadata(path).map(|metadata| metadata.permissions()).ok();
    let file = AtomicFile::new(path, OverwriteBehavior::AllowOverwrite);
    let written = file.write(|file| {
        permissions.map_or(Ok(()), |permissions| file.set_permissions(permissions))?;
        file.write_all(contents)
    });
    written.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_failure_leaves_what_was_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        replace(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        // A directory cannot be replaced by a file.
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        replace(&taken, b"x").unwrap_err();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["config.json", "taken"]);
    }
}
