"""What becomes of an accepted call: its turn, its attempts, its answer. The whole way is drawn in course.py."""
