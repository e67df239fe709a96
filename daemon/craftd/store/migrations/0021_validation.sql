ALTER TABLE training_steps ADD COLUMN validation_loss REAL; -- of pictures that are not learned from; null: not taken
