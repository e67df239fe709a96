-- For the sweeper of old pictures: their order and their sizes, without reading the rows.
CREATE INDEX images_by_age ON images (create_time, seq, size_bytes);
-- For the metrics: how many jobs there are of each state.
CREATE INDEX jobs_by_state ON jobs (state);
