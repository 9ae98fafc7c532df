"""An HTTP server for trained models, with the routes of OpenAI's embeddings and of Hugging Face's text-embeddings-inference."""
