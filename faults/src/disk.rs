//! A disk that forgets what was not synced when its power is cut: a file
//! system in memory, mounted through FUSE, from which whatever was written
//! without `fsync` can be dropped. A process that is killed loses nothing that
//! the kernel has; here it does, as on a machine without power.
//!
//! It must be mounted by somebody who may: root, or whoever is root in a
//! namespace of mounts of their own. What runs on it must be dead before the
//! power is cut.
//!
//! [`tree`] is what is on it, [`wire`] how the kernel asks for that. (The crate
//! `fuser` does the same as `wire` and much more; this is as much as is needed,
//! and needs no other crate.)

mod tree;
mod wire;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::io::Errno;

use tree::{Content, Folder, Number, Tree};
use wire::{Answer, Ask, Request, Set};

/// A mounted disk; what is on it is gone when it is dropped.
#[derive(Debug)]
pub struct Disk {
    tree: Arc<Mutex<Tree>>,
    folder: PathBuf,
}

impl Disk {
    /// Mounts an empty one on a folder.
    ///
    /// # Errors
    /// When this machine has no FUSE, or does not let us use it.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let kernel = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")?;
        // Its standard input is where the kernel is to ask.
        let mounting = Command::new("mount")
            .args(["-i", "-n", "-t", "fuse", "-o"])
            .arg(format!(
                "fd=0,rootmode=40000,user_id={},group_id={}",
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw()
            ))
            .arg("sotto-faults")
            .arg(folder)
            .stdin(Stdio::from(kernel.try_clone()?))
            .stderr(Stdio::null())
            .status()?;
        if !mounting.success() {
            let error = "mounting through FUSE is not allowed here";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        let tree = Arc::new(Mutex::new(Tree::new(SystemTime::now())));
        let served = Arc::clone(&tree);
        thread::spawn(move || serve(&kernel, &served));
        Ok(Self {
            tree,
            folder: folder.to_owned(),
        })
    }

    /// Drops what was not synced; how many files and folders that changed. Of
    /// each write that was not, `survives` says whether it is there all the same.
    pub fn cut_power(&self, survives: impl FnMut() -> bool) -> usize {
        lock(&self.tree).cut_power(survives)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Even while somebody has a file open on it; its thread ends when nobody
        // has any more. Ignored: a disk that stays is a nuisance, no more.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// Answers the kernel until the disk is unmounted.
fn serve(mut kernel: &File, tree: &Mutex<Tree>) {
    let mut listings = Listings::default();
    let mut buffer = vec![0; wire::MAX_MESSAGE];
    loop {
        let length = match kernel.read(&mut buffer) {
            Ok(length) => length,
            Err(error) => match Errno::from_io_error(&error) {
                // A question that was taken back.
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
                _ => return,
            },
        };
        let message = buffer.get(..length).unwrap_or_default();
        let Some(request) = Request::parse(message, SystemTime::now()) else {
            return;
        };
        if matches!(request.ask, Ask::Unanswered) {
            continue;
        }
        let unique = request.unique;
        let answer = answer(&mut lock(tree), &mut listings, request);
        // An error says that nobody waits for it any more.
        let _ = kernel.write_all(&wire::message(unique, answer));
    }
}

/// What was in the folders that somebody lists, when they began: number,
/// whether it is a folder, and name.
#[derive(Default)]
struct Listings {
    next: u64,
    open: HashMap<u64, Vec<(Number, bool, OsString)>>,
}

fn answer(
    tree: &mut Tree,
    listings: &mut Listings,
    Request { node, ask, .. }: Request<'_>,
) -> Result<Answer, Errno> {
    let now = SystemTime::now();
    match ask {
        Ask::Begin => Ok(Answer::begin()),
        Ask::LookUp(name) => {
            let number = tree.look_up(node, name)?;
            Ok(Answer::found(number, tree.node(number)?))
        }
        Ask::Attributes => Ok(Answer::described(node, tree.node(node)?)),
        Ask::Set(Set {
            mode,
            size,
            changed,
        }) => {
            if let Some(size) = size {
                tree.resize(node, size)?;
            }
            let set = tree.node_mut(node)?;
            set.mode = mode.unwrap_or(set.mode);
            set.changed = changed.unwrap_or(set.changed);
            Ok(Answer::described(node, set))
        }
        Ask::MakeFolder { name, mode } => {
            let folder = Content::Folder(Folder::default());
            let number = tree.make(node, name, folder, wire::permissions(mode), now)?;
            Ok(Answer::found(number, tree.node(number)?))
        }
        Ask::Remove { name, is_folder } => {
            tree.remove(node, name, is_folder)?;
            Ok(Answer::default())
        }
        Ask::Rename { from, folder, to } => {
            tree.rename((node, from), (folder, to))?;
            Ok(Answer::default())
        }
        Ask::Create { name, mode } => {
            let file = Content::File(tree::File::default());
            let number = tree.make(node, name, file, wire::permissions(mode), now)?;
            tree.opened(number);
            Ok(Answer::found(number, tree.node(number)?).opened())
        }
        Ask::Open => {
            tree.node(node)?;
            tree.opened(node);
            Ok(Answer::default().opened())
        }
        Ask::Read { at, length } => Ok(Answer::bytes(tree.read(node, at, length)?)),
        Ask::Write { at, content, flags } => {
            tree.write(node, at, content, now)?;
            // O_SYNC has this bit, too.
            if OFlags::from_bits_retain(flags).contains(OFlags::DSYNC) {
                tree.sync(node)?;
            }
            Ok(Answer::written(content.len()))
        }
        Ask::Close => {
            tree.closed(node);
            Ok(Answer::default())
        }
        Ask::Sync => {
            tree.sync(node)?;
            Ok(Answer::default())
        }
        Ask::OpenFolder => {
            // The folder above is not known here; programs take it from the path.
            let mut names = vec![(node, true, ".".into()), (node, true, "..".into())];
            for (number, name) in tree.list(node)? {
                let is_folder = matches!(tree.node(number)?.content, Content::Folder(_));
                names.push((number, is_folder, name));
            }
            tree.opened(node);
            listings.next += 1;
            listings.open.insert(listings.next, names);
            Ok(Answer::opened_folder(listings.next))
        }
        Ask::List {
            handle,
            from,
            length,
        } => {
            let names = listings.open.get(&handle).ok_or(Errno::BADF)?;
            Ok(Answer::listed(names, from, length))
        }
        Ask::CloseFolder { handle } => {
            listings.open.remove(&handle);
            tree.closed(node);
            Ok(Answer::default())
        }
        Ask::Space => Ok(Answer::space()),
        Ask::Fine => Ok(Answer::default()),
        Ask::Unanswered | Ask::Other => Err(Errno::NOSYS),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
