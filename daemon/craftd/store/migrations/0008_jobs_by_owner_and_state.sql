-- Lists by owner and state stay quick with millions of finished jobs (every index ends with seq, the row's own key).
DROP INDEX jobs_by_owner;
DROP INDEX jobs_unfinished; -- jobs_by_state finds them as quickly
CREATE INDEX jobs_by_owner_and_state ON jobs (owner, state);
CREATE INDEX jobs_that_train ON jobs (state) WHERE kind = 'train'; -- few among many, and looked for at each start
