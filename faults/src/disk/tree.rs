//! Files in memory, each as it is and as a power cut would leave it.
//!
//! What is written is durable when its file is synced. Names are a journal:
//! whatever is synced makes everything durable that was made, renamed or
//! removed before, as ext4 and XFS do, and without a sync nothing of it is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::time::SystemTime;

use rustix::io::Errno;

/// Number of a file or folder; never used again for another.
pub(super) type Number = u64;

/// The folder that everything is in.
pub(super) const ROOT: Number = 1;

#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<Number, Node>,
    next: Number,
    /// Folders whose names are not durable yet.
    renamed: HashSet<Number>,
    /// How often each is open: what has no name any more lives as long.
    open: HashMap<Number, u64>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u16,
    pub(super) changed: SystemTime,
}

#[derive(Debug)]
pub(super) enum Content {
    Folder(Folder),
    File(File),
}

#[derive(Debug, Default, Clone)]
pub(super) struct Folder {
    names: BTreeMap<OsString, Number>,
    durable: BTreeMap<OsString, Number>,
}

#[derive(Debug, Default)]
pub(super) struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since it was synced.
    written: Vec<Range<usize>>,
    /// The shortest that it was since then, when it was cut.
    shortest: Option<usize>,
}

impl Tree {
    pub(super) fn new(now: SystemTime) -> Self {
        let root = Node {
            content: Content::Folder(Folder::default()),
            mode: 0o700,
            changed: now,
        };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            renamed: HashSet::new(),
            open: HashMap::new(),
        }
    }

    pub(super) fn node(&self, number: Number) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::NOENT)
    }

    pub(super) fn node_mut(&mut self, number: Number) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::NOENT)
    }

    pub(super) fn look_up(&self, folder: Number, name: &OsStr) -> Result<Number, Errno> {
        let found = self.folder(folder)?.names.get(name);
        found.copied().ok_or(Errno::NOENT)
    }

    /// What is in a folder.
    pub(super) fn list(&self, folder: Number) -> Result<Vec<(Number, OsString)>, Errno> {
        let names = self.folder(folder)?.names.iter();
        Ok(names
            .map(|(name, number)| (*number, name.clone()))
            .collect())
    }

    pub(super) fn make(
        &mut self,
        folder: Number,
        name: &OsStr,
        content: Content,
        mode: u16,
        now: SystemTime,
    ) -> Result<Number, Errno> {
        if self.look_up(folder, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let number = self.next;
        self.names(folder)?.insert(name.to_owned(), number);
        self.next += 1;
        let node = Node {
            content,
            mode,
            changed: now,
        };
        self.nodes.insert(number, node);
        Ok(number)
    }

    pub(super) fn remove(
        &mut self,
        folder: Number,
        name: &OsStr,
        is_folder: bool,
    ) -> Result<(), Errno> {
        let number = self.look_up(folder, name)?;
        match (&self.node(number)?.content, is_folder) {
            (Content::Folder(_), false) => return Err(Errno::ISDIR),
            (Content::File(_), true) => return Err(Errno::NOTDIR),
            (Content::Folder(inner), true) if !inner.names.is_empty() => {
                return Err(Errno::NOTEMPTY);
            }
            _ => {}
        }
        self.names(folder)?.remove(name);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: (Number, &OsStr),
        to: (Number, &OsStr),
    ) -> Result<(), Errno> {
        let number = self.look_up(from.0, from.1)?;
        if let Ok(replaced) = self.look_up(to.0, to.1) {
            if replaced == number {
                return Ok(());
            }
            let is_folder = matches!(self.node(replaced)?.content, Content::Folder(_));
            self.remove(to.0, to.1, is_folder)?;
        }
        self.names(from.0)?.remove(from.1);
        self.names(to.0)?.insert(to.1.to_owned(), number);
        Ok(())
    }

    pub(super) fn read(&self, number: Number, at: u64, length: u32) -> Result<&[u8], Errno> {
        let content = &self.file(number)?.now;
        let at = usize::try_from(at).map_err(|_| Errno::INVAL)?;
        let rest = content.get(at..).unwrap_or_default();
        Ok(rest.get(..length as usize).unwrap_or(rest))
    }

    pub(super) fn write(
        &mut self,
        number: Number,
        at: u64,
        content: &[u8],
        now: SystemTime,
    ) -> Result<(), Errno> {
        let from = usize::try_from(at).map_err(|_| Errno::INVAL)?;
        let to = from.checked_add(content.len()).ok_or(Errno::FBIG)?;
        let file = self.file_mut(number)?;
        if file.now.len() < to {
            file.now.resize(to, 0);
        }
        let place = file.now.get_mut(from..to).ok_or(Errno::FBIG)?;
        place.copy_from_slice(content);
        file.written.push(from..to);
        self.node_mut(number)?.changed = now;
        Ok(())
    }

    /// Cuts a file, or makes it longer with zeros.
    pub(super) fn resize(&mut self, number: Number, length: u64) -> Result<(), Errno> {
        let length = usize::try_from(length).map_err(|_| Errno::FBIG)?;
        let file = self.file_mut(number)?;
        if length < file.now.len() {
            let shortest = file.shortest.unwrap_or(length).min(length);
            file.shortest = Some(shortest);
        }
        file.now.resize(length, 0);
        Ok(())
    }

    pub(super) fn opened(&mut self, number: Number) {
        *self.open.entry(number).or_default() += 1;
    }

    pub(super) fn closed(&mut self, number: Number) {
        if let Some(times) = self.open.get_mut(&number) {
            *times -= 1;
            if *times == 0 {
                self.open.remove(&number);
            }
        }
    }

    /// Makes a file durable, and with it every name.
    pub(super) fn sync(&mut self, number: Number) -> Result<(), Errno> {
        if let Content::File(file) = &mut self.node_mut(number)?.content {
            file.sync();
        }
        if self.renamed.is_empty() {
            return Ok(());
        }
        for folder in std::mem::take(&mut self.renamed) {
            if let Some(Node {
                content: Content::Folder(folder),
                ..
            }) = self.nodes.get_mut(&folder)
            {
                folder.durable = folder.names.clone();
            }
        }
        self.forget_the_nameless();
        Ok(())
    }

    /// Everything is as a power cut leaves it; how many files and folders are
    /// another than before. Of each write that was not synced `survives` says
    /// whether it is there all the same.
    pub(super) fn cut_power(&mut self, mut survives: impl FnMut() -> bool) -> usize {
        let mut differ = 0;
        for node in self.nodes.values_mut() {
            let changed = match &mut node.content {
                Content::Folder(folder) => {
                    let changed = folder.names != folder.durable;
                    folder.names = folder.durable.clone();
                    changed
                }
                Content::File(file) => {
                    for range in std::mem::take(&mut file.written) {
                        if survives() {
                            file.make_durable(range);
                        }
                    }
                    let changed = file.now != file.durable;
                    file.now = file.durable.clone();
                    file.shortest = None;
                    changed
                }
            };
            differ += usize::from(changed);
        }
        self.renamed.clear();
        self.forget_the_nameless();
        differ
    }

    /// Drops what no name leads to, now or after a power cut, and nobody reads.
    fn forget_the_nameless(&mut self) {
        let mut named = HashSet::new();
        let mut folders = vec![ROOT];
        folders.extend(self.open.keys());
        while let Some(number) = folders.pop() {
            if !named.insert(number) {
                continue;
            }
            if let Some(Node {
                content: Content::Folder(folder),
                ..
            }) = self.nodes.get(&number)
            {
                folders.extend(folder.names.values().chain(folder.durable.values()));
            }
        }
        self.nodes.retain(|number, _| named.contains(number));
    }

    fn folder(&self, number: Number) -> Result<&Folder, Errno> {
        match &self.node(number)?.content {
            Content::Folder(folder) => Ok(folder),
            Content::File(_) => Err(Errno::NOTDIR),
        }
    }

    /// The names in a folder, to be changed.
    fn names(&mut self, number: Number) -> Result<&mut BTreeMap<OsString, Number>, Errno> {
        match self.nodes.get_mut(&number) {
            Some(Node {
                content: Content::Folder(folder),
                ..
            }) => {
                self.renamed.insert(number);
                Ok(&mut folder.names)
            }
            Some(_) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn file(&self, number: Number) -> Result<&File, Errno> {
        match &self.node(number)?.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(Errno::ISDIR),
        }
    }

    fn file_mut(&mut self, number: Number) -> Result<&mut File, Errno> {
        match &mut self.node_mut(number)?.content {
            Content::File(file) => Ok(file),
            Content::Folder(_) => Err(Errno::ISDIR),
        }
    }
}

impl Node {
    /// In bytes; that of a folder is none.
    pub(super) fn length(&self) -> u64 {
        match &self.content {
            Content::Folder(_) => 0,
            Content::File(file) => file.now.len() as u64,
        }
    }
}

impl File {
    fn sync(&mut self) {
        if let Some(shortest) = self.shortest.take() {
            self.durable.truncate(shortest);
        }
        self.durable.resize(self.now.len(), 0);
        for range in std::mem::take(&mut self.written) {
            self.make_durable(range);
        }
    }

    /// As much of what was written there as was not cut off since.
    fn make_durable(&mut self, range: Range<usize>) {
        let end = range.end.min(self.now.len());
        let range = range.start.min(end)..end;
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        if let (Some(durable), Some(now)) =
            (self.durable.get_mut(range.clone()), self.now.get(range))
        {
            durable.copy_from_slice(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn tree_with(name: &str) -> (Tree, Number) {
        let mut tree = Tree::new(NOW);
        let file = Content::File(File::default());
        let number = tree.make(ROOT, name.as_ref(), file, 0o600, NOW).unwrap();
        (tree, number)
    }

    fn content(tree: &Tree, name: &str) -> Option<Vec<u8>> {
        let number = tree.look_up(ROOT, name.as_ref()).ok()?;
        Some(tree.read(number, 0, 1_000).unwrap().to_vec())
    }

    #[test]
    fn what_is_synced_survives_and_what_is_not_does_not() {
        let (mut tree, number) = tree_with("log");
        tree.write(number, 0, b"first", NOW).unwrap();
        tree.sync(number).unwrap();
        tree.write(number, 5, b" second", NOW).unwrap();
        tree.write(number, 0, b"F", NOW).unwrap();
        assert_eq!(content(&tree, "log").unwrap(), b"First second");
        assert_eq!(tree.cut_power(|| false), 1);
        assert_eq!(content(&tree, "log").unwrap(), b"first");
        assert_eq!(tree.cut_power(|| false), 0);
    }

    #[test]
    fn what_is_not_synced_may_survive_in_part() {
        let (mut tree, number) = tree_with("log");
        tree.sync(number).unwrap();
        for (at, word) in [(0, b"one"), (3, b"two"), (6, b"six")] {
            tree.write(number, at, word, NOW).unwrap();
        }
        let mut survive = [false, true, false].into_iter();
        tree.cut_power(|| survive.next().unwrap());
        assert_eq!(content(&tree, "log").unwrap(), b"\0\0\0two");
    }

    #[test]
    fn a_name_is_durable_when_anything_is_synced_after_it() {
        let (mut tree, number) = tree_with("one");
        tree.sync(number).unwrap();
        let file = Content::File(File::default());
        let second = tree.make(ROOT, "two".as_ref(), file, 0o600, NOW).unwrap();
        tree.write(second, 0, b"two", NOW).unwrap();
        tree.rename((ROOT, "one".as_ref()), (ROOT, "uno".as_ref()))
            .unwrap();
        tree.cut_power(|| false);
        assert_eq!(content(&tree, "one").unwrap(), b"");
        assert!(content(&tree, "two").is_none() && content(&tree, "uno").is_none());

        tree.remove(ROOT, "one".as_ref(), false).unwrap();
        tree.sync(ROOT).unwrap();
        tree.cut_power(|| false);
        assert!(content(&tree, "one").is_none());
    }

    #[test]
    fn a_file_replaced_by_one_that_was_not_synced_is_empty() {
        let (mut tree, old) = tree_with("state");
        tree.write(old, 0, b"old", NOW).unwrap();
        tree.sync(old).unwrap();
        let file = Content::File(File::default());
        let new = tree.make(ROOT, "new".as_ref(), file, 0o600, NOW).unwrap();
        tree.write(new, 0, b"new", NOW).unwrap();
        tree.rename((ROOT, "new".as_ref()), (ROOT, "state".as_ref()))
            .unwrap();
        tree.sync(ROOT).unwrap();
        tree.cut_power(|| false);
        assert_eq!(content(&tree, "state").unwrap(), b"");
    }

    #[derive(Debug, Clone)]
    enum Act {
        Write(u8, Vec<u8>),
        Resize(u8),
        Sync,
        Drop,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (any::<u8>(), prop::collection::vec(any::<u8>(), 1..40))
                .prop_map(|(at, content)| Act::Write(at, content)),
            2 => any::<u8>().prop_map(Act::Resize),
            1 => Just(Act::Sync),
            1 => Just(Act::Drop),
        ]
    }

    proptest! {
        #[test]
        fn a_file_is_always_as_it_was_synced_last(acts in prop::collection::vec(act(), 1..60)) {
            let (mut tree, number) = tree_with("file");
            tree.sync(number).unwrap();
            let (mut now, mut durable) = (Vec::new(), Vec::new());
            for act in acts {
                match act {
                    Act::Write(at, content) => {
                        tree.write(number, at.into(), &content, NOW).unwrap();
                        let (from, to) = (usize::from(at), usize::from(at) + content.len());
                        now.resize(now.len().max(to), 0);
                        now[from..to].copy_from_slice(&content);
                    }
                    Act::Resize(length) => {
                        tree.resize(number, length.into()).unwrap();
                        now.resize(length.into(), 0);
                    }
                    Act::Sync => {
                        tree.sync(number).unwrap();
                        durable = now.clone();
                    }
                    Act::Drop => {
                        tree.cut_power(|| false);
                        now = durable.clone();
                    }
                }
                prop_assert_eq!(content(&tree, "file").unwrap(), now.clone());
            }
        }
    }
}
