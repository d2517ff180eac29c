//! The socket in the file system: made for its owner only, in place of one that a dead program left, and removed at
//! the end if it is still the one that was made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::ControlError;

/// Clients that may wait for being accepted.
const BACKLOG: i32 = 16;

/// A socket that listens.
pub struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the socket in the file system.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at `path`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |e: Errno| ControlError::Socket { path: path.into(), source: e.into() };
        let address = match SocketAddrUnix::new(path) {
            Ok(address) => address,
            Err(Errno::NAMETOOLONG) => return Err(ControlError::TooLong { path: path.into() }),
            Err(e) => return Err(failed(e)),
        };
        make_room(path, &address)?;
        let fd = stream().map_err(failed)?;
        // On Linux the mode of the unbound socket is that of the file to come: no moment at which others may connect.
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        match rustix::net::bind(&fd, &address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Err(ControlError::InUse { path: path.into() }),
            Err(e) => return Err(failed(e)),
        }
        let listener = Self { fd, path: path.into(), identity: identity(path) };
        rustix::net::listen(&listener.fd, BACKLOG).map_err(failed)?;
        Ok(listener)
    }

    /// The next client, if one waits.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        Ok(rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Removes a socket that nobody listens on any more. Anything else is somebody's.
fn make_room(path: &Path, address: &SocketAddrUnix) -> Result<(), ControlError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(ControlError::Occupied { path: path.into() });
    }
    let failed = |source: io::Error| ControlError::Socket { path: path.into(), source };
    let probe = stream().map_err(|e| failed(e.into()))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(failed),
        Err(Errno::NOENT) => Ok(()),
        // Also one that has no room for the probe, or is not for us.
        _ => Err(ControlError::InUse { path: path.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("armlet-socket-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_ours_is_removed_at_the_end() {
        let folder = Folder::new("stale");
        let path = folder.0.join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn what_belongs_to_others_stays() {
        let folder = Folder::new("others");
        let path = folder.0.join("s");
        let other = UnixListener::bind(&path).unwrap();
        let error = |path: &Path| Listener::bind(path).err().unwrap().to_string();
        assert!(error(&path).contains("another program listens"), "{}", error(&path));
        UnixStream::connect(&path).unwrap();
        drop(other);
        let file = folder.0.join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(error(&file).contains("something else is there"));
        let link = folder.0.join("link");
        symlink(folder.0.join("nowhere"), &link).unwrap();
        assert!(error(&link).contains("something else is there"));
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
        assert!(error(&folder.0.join("x".repeat(120))).contains("at most 107 bytes"));
        assert!(error(&folder.0.join("no/s")).contains("check the path"));
        // Somebody replaced our socket by theirs.
        let ours = folder.0.join("ours");
        let listener = Listener::bind(&ours).unwrap();
        std::fs::remove_file(&ours).unwrap();
        let theirs = UnixListener::bind(&ours).unwrap();
        drop(listener);
        assert!(ours.exists());
        drop(theirs);
    }
}
