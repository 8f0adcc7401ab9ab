"""What people run. The only room that knows Ray and MLflow."""
