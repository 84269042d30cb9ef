//! Which chunks of a file a stream keeps, without reading them.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use sotto_proto::wire::ChunkSpan;
use sotto_proto::{Subject, blob_stream};

use super::direct_get::{ReadError, Reader};
use super::plan::StoredPlan;

impl Reader {
    /// Which of the chunks are there, in order.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stored(&self, asked: &StoredPlan) -> Result<Vec<ChunkSpan>, ReadError> {
        let name = blob_stream(asked.address.shard);
        let unanswered = || ReadError::Unanswered(name.clone());
        let stream = self.jetstream().get_stream(&name).await;
        let stream = stream.map_err(|_| unanswered())?;
        let of_file = format!("blob.{}.{}.*", asked.address, asked.file);
        let subjects = stream.info_with_subjects(of_file).await;
        let mut subjects = subjects.map_err(|_| unanswered())?;
        let mut there = BTreeSet::new();
        while let Some((subject, _)) = subjects.try_next().await.map_err(|_| unanswered())? {
            // Only what was asked for is kept, however many chunks there are.
            if let Ok(Subject::Blob { index, .. }) = subject.parse()
                && asked.chunks.contains(&index)
            {
                there.insert(index);
            }
        }
        Ok(spans(&there))
    }
}

/// Neighbours together.
fn spans(chunks: &BTreeSet<u32>) -> Vec<ChunkSpan> {
    let mut spans: Vec<ChunkSpan> = Vec::new();
    for &chunk in chunks {
        match spans.last_mut() {
            Some(last) if last.first.checked_add(last.count) == Some(chunk) => last.count += 1,
            _ => spans.push(ChunkSpan {
                first: chunk,
                count: 1,
            }),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_span() {
        let spans = |chunks: &[u32]| {
            let spans = spans(&chunks.iter().copied().collect());
            let span = |span: ChunkSpan| (span.first, span.count);
            spans.into_iter().map(span).collect::<Vec<_>>()
        };
        assert_eq!(spans(&[]), []);
        assert_eq!(spans(&[0, 1, 2, 5, 7, 8]), [(0, 3), (5, 1), (7, 2)]);
        assert_eq!(spans(&[u32::MAX]), [(u32::MAX, 1)]);
    }
}
