//! The one connection that writes to SQLite. A commit costs a flush of the disk, whatever it
//! holds; so everything that was asked for during one commit goes into the next, together.

use std::sync::Arc;

use protocol::ports::StoreError;
use sqlx::{AnyConnection, Connection, any::AnyConnectOptions, raw_sql};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    sql::{NoOutcome, Statement},
    sqlite_file::SqliteFile,
};

/// How many writes may wait for the next commit; further callers wait for a place.
const QUEUE: usize = 1024;

/// How many writes one commit takes at most, so that the first is not answered much later for
/// the sake of the last.
const BATCH: usize = 256;

/// A statement, and where the number of rows it changed is awaited.
struct Write {
    statement: Statement,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<u64, StoreError>>;

/// The way to the writer.
pub(super) struct WriteQueue {
    writes: mpsc::Sender<Write>,
    finish: CancellationToken,
    task: TaskTracker,
}

impl WriteQueue {
    /// Starts a writer over an open connection.
    pub(super) fn start(
        file: SqliteFile,
        options: AnyConnectOptions,
        connection: AnyConnection,
    ) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let finish = CancellationToken::new();
        let writer = Writer {
            file,
            options,
            connection: Some(connection),
            queue,
            finish: finish.clone(),
        };
        let task = TaskTracker::new();
        task.spawn(writer.run());
        task.close();
        Self {
            writes: sender,
            finish,
            task,
        }
    }

    /// How many rows `statement` changed, once that is on disk.
    pub(super) async fn change(&self, statement: Statement) -> Result<u64, StoreError> {
        let closed = || StoreError::new(NoOutcome::Closed);
        let (answer, answered) = oneshot::channel();
        let write = Write { statement, answer };
        self.writes.send(write).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Waits for what is queued and for the end of the writer; refuses what comes after.
    pub(super) async fn finish(&self) {
        self.finish.cancel();
        self.task.wait().await;
    }
}

/// Takes writes until it is told to finish, or nobody is left to send any.
struct Writer {
    file: SqliteFile,
    options: AnyConnectOptions,
    /// `None` after an error: the next batch connects anew.
    connection: Option<AnyConnection>,
    queue: mpsc::Receiver<Write>,
    finish: CancellationToken,
}

impl Writer {
    /// Commits batch after batch, answering each write only then; at the end, what is queued.
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.next(&mut batch).await {
            let (statements, answers): (Vec<_>, Vec<_>) = batch
                .drain(..)
                // Whoever has gone away could not use the answer.
                .filter(|write| !write.answer.is_closed())
                .map(|write| (write.statement, write.answer))
                .unzip();
            if answers.is_empty() {
                continue;
            }
            match self.commit(statements, &answers).await {
                Ok(changed) => {
                    for (answer, changed) in answers.into_iter().zip(changed) {
                        // Unread when its caller went away meanwhile, which is the caller's right.
                        let _ = answer.send(Ok(changed));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for answer in answers {
                        let _ = answer.send(Err(StoreError::new(Arc::clone(&error))));
                    }
                }
            }
        }
        self.close().await;
    }

    /// Waits for writes and takes all there are, up to [`BATCH`]. `false`: there will be no more.
    async fn next(&mut self, batch: &mut Vec<Write>) -> bool {
        tokio::select! {
            taken = self.queue.recv_many(batch, BATCH) => taken > 0,
            () = self.finish.cancelled() => {
                self.queue.close();
                self.queue.recv_many(batch, BATCH).await > 0
            }
        }
    }

    /// Runs `statements` in one transaction. After an error none of them counts, or, when it was
    /// the commit that failed, nobody knows.
    async fn commit(
        &mut self,
        statements: Vec<Statement>,
        answers: &[Answer],
    ) -> sqlx::Result<Vec<u64>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.options).await?,
        };
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut changed = Vec::with_capacity(statements.len());
        for (statement, answer) in statements.into_iter().zip(answers) {
            // While another program held the database, its caller may have been told that it failed.
            if answer.is_closed() {
                changed.push(0);
                continue;
            }
            let outcome = statement.execute(&mut *transaction).await?;
            changed.push(outcome.rows_affected());
        }
        transaction.commit().await?;
        // Kept only after success. What is left of a failed transaction depends on the error;
        // closing the connection ends all of it.
        self.connection = Some(connection);
        Ok(changed)
    }

    /// Moves the log into the database, so that the file alone is complete.
    async fn close(self) {
        let Some(mut connection) = self.connection else {
            return;
        };
        let moved = raw_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut connection)
            .await;
        if let Err(error) = moved.and(connection.close().await) {
            let file = self.file.path().display();
            tracing::warn!(%error, "the log of {file} stays beside it until the next start");
        }
    }
}

/// Opens a connection that writes durably: the log is flushed at every commit.
pub(super) async fn connect(options: &AnyConnectOptions) -> sqlx::Result<AnyConnection> {
    let mut connection = AnyConnection::connect_with(options).await?;
    // `fullfsync` matters on macOS only, where an ordinary flush stops short of the disk.
    raw_sql("PRAGMA busy_timeout = 4000; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}
