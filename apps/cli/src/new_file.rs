//! A file that is there as a whole or not at all, and never in place of
//! another one.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that is being written; removed again unless it is finished.
pub struct NewFile {
    path: PathBuf,
    writer: BufWriter<File>,
    finished: bool,
}

impl NewFile {
    /// Begins a file.
    ///
    /// # Errors
    /// When there is one already, or none can be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            writer: BufWriter::new(File::create_new(path)?),
            finished: false,
        })
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When the disk refuses; then there is no file.
    pub fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        self.finished = true;
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // A part of it may stay behind: nothing else can be done about it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finished_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(!path.exists());

        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert!(NewFile::create(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }
}
