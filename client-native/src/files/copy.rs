//! Sending a file that another room has already: the relay copies its chunks,
//! and nothing of it is uploaded.

use prost::Message as _;
use sotto_client_core::engine::CopyOf;
use sotto_client_core::io::{Command, PublishFailure};
use sotto_proto::limits;
use sotto_proto::refusals::Refusal;
use sotto_proto::wire::CopyRequest;
use tokio::time::Instant;

use super::TransferError;
use super::upload::{Upload, advance, find, went_through};
use super::window::Window;
use crate::nats::Message;
use crate::session::Session;

impl Upload {
    /// Has the relay copy the chunks; whether it does.
    pub(super) async fn copy(
        &mut self,
        session: &Session,
        of: CopyOf,
        report: &mut impl FnMut(u64),
    ) -> Result<bool, TransferError> {
        let (file, chunks) = (self.progress.file, self.progress.chunks);
        let mut window = Window::new(limits::COPY_CHUNKS as usize);
        while self.progress.next < chunks {
            let connection = session.connection().await?;
            let first = self.progress.next;
            let most = u32::try_from(window.size()).unwrap_or(1);
            let request = CopyRequest {
                from: of.room.to_bytes(),
                first,
                count: most.min(chunks - first),
            };
            let asked = Instant::now();
            let answer = connection.publish(Message {
                subject: self.address.copy(of.file),
                message_id: format!("copy.{file}.{first}"),
                expected_last_sequence: None,
                payload: request.encode_to_vec().into(),
            });
            let answer = answer.await;
            if let Err(PublishFailure::Refused(refusal)) = &answer
                && is_not_copied(refusal)
            {
                return Ok(false);
            }
            if went_through(answer, asked, &mut window).await? {
                // As many answers as chunks.
                (1..request.count).for_each(|_| window.answered(asked.elapsed()));
                self.progress.next += request.count;
                report(self.bytes(self.progress.next));
                if self.progress.next < chunks {
                    advance(session, file, self.progress.next)
                        .await
                        .done()
                        .await?;
                }
            }
        }
        Ok(true)
    }

    /// Makes it an upload like any other, from the first chunk.
    pub(super) async fn upload_instead(&mut self, session: &Session) -> Result<(), TransferError> {
        let file = self.progress.file;
        let command = Command::UploadInstead { file };
        session.command(command).await.done().await?;
        (self.progress, self.address) = find(session, file).await?;
        self.begun_before = false;
        Ok(())
    }
}

/// It is not there any more, this device may not have it copied, or the relay
/// is one that does not copy.
fn is_not_copied(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NothingToCopy | Refusal::SubjectNotAllowed)
}
